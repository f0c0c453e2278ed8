#!/usr/bin/env bash
# Base-to-novel, second half: test the model of base2new_train.sh on the new classes.
#
# usage: DATA=... bash scripts/base2new_test.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/base2new_test.sh CDC handwritten_digits 1
#
# Reads what base2new_train.sh wrote; writes
# $OUTPUT/base2new/test_new/DATASET/shots_$SHOTS/TRAINER/$CFG/seedSEED (results.json contains the
# accuracy on the new classes). LOADEP is the epoch to load (default: best, else last);
# its results are in the folder $CFG,epoch=LOADEP.
# Environment: DATA (required), CFG, SHOTS=16, OUTPUT=output, LOADEP.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
