#!/usr/bin/env bash
# Base-to-novel, first half: train on the base classes, test on them.
#
# usage: DATA=... bash scripts/base2new_train.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/base2new_train.sh CDC handwritten_digits 1
#
# Writes $OUTPUT/base2new/train_base/DATASET/shots_$SHOTS/TRAINER/$CFG/seedSEED (results.json
# contains the base accuracy). A finished run is skipped, an interrupted one resumes.
# Environment: DATA (required), CFG, SHOTS=16, OUTPUT=output. KEY VALUE pairs change the configuration
# and are in the folder's name: $CFG,KEY=VALUE. Pass the same pairs to base2new_test.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
