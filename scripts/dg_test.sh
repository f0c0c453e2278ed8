#!/usr/bin/env bash
# Domain generalisation, second half: test the model of xd_train.sh on a variant of ImageNet.
#
# usage: DATA=... bash scripts/dg_test.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/dg_test.sh CDC imagenet_a 1
#
# DATASET: imagenetv2, imagenet_sketch, imagenet_a or imagenet_r; all their images are test images.
# Writes $OUTPUT/evaluation/TRAINER/${CFG}_${SHOTS}shots/DATASET/seedSEED; for another source than
# imagenet, below $OUTPUT/evaluation/from_$SOURCE. A finished run is skipped.
# Environment: DATA (required), SOURCE=imagenet, CFG, SHOTS=16 (of the source), OUTPUT=output, LOADEP.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
