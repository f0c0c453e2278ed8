#!/usr/bin/env bash
# Cross-dataset, second half: test the model of xd_train.sh on all classes of another data set.
#
# usage: DATA=... bash scripts/xd_test.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/xd_test.sh CDC caltech101 1
#        SOURCE=caltech101 bash scripts/xd_test.sh CoOp handwritten_digits 1
#
# Writes $OUTPUT/evaluation/TRAINER/${CFG}_${SHOTS}shots/DATASET/seedSEED; for another source than
# imagenet, below $OUTPUT/evaluation/from_$SOURCE. LOADEP is the epoch to load (default: best, else
# last). The published targets are caltech101 oxford_pets stanford_cars oxford_flowers food101
# fgvc_aircraft sun397 dtd eurosat ucf101; any other data set works. A finished run is skipped.
# Environment: DATA (required), SOURCE=imagenet, CFG, SHOTS=16 (of the source), OUTPUT=output, LOADEP.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
