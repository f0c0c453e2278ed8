#!/usr/bin/env bash
# Base-to-novel, second half: the prompts trained on the base classes, tested on the new ones.
#
# usage: DATA=... bash scripts/base2new_test.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/base2new_test.sh CDC handwritten_digits 1
#
# Reads what base2new_train.sh wrote; writes
# $OUTPUT/base2new/test_new/DATASET/shots_$SHOTS/TRAINER/$CFG/seedSEED (results.json holds the
# accuracy on the new classes). LOADEP names the epoch to load (default: best, else last);
# its results have a folder of their own, $CFG,epoch=LOADEP.
# Environment: DATA (required), CFG, SHOTS=16, OUTPUT=output, LOADEP.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
