#!/usr/bin/env bash
# Base-to-novel, first half: train on the base classes, test on them.
#
# usage: DATA=... bash scripts/base2new_train.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/base2new_train.sh CDC handwritten_digits 1
#
# Writes $OUTPUT/base2new/train_base/DATASET/shots_$SHOTS/TRAINER/$CFG/seedSEED (results.json holds
# the base accuracy). A finished run is skipped, an interrupted one resumes.
# Environment: DATA (required), CFG, SHOTS=16, OUTPUT=output; KEY VALUE pairs go to the configuration,
# and name the folder: $CFG,KEY=VALUE. A test of it is given the same pairs.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
