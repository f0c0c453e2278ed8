#!/usr/bin/env bash
# Domain generalisation, second half: what xd_train.sh learned, tested on a variant of ImageNet.
#
# usage: DATA=... bash scripts/dg_test.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/dg_test.sh CDC imagenet_a 1
#
# DATASET: imagenetv2, imagenet_sketch, imagenet_a or imagenet_r; all their images are tested on.
# Writes $OUTPUT/evaluation/TRAINER/${CFG}_${SHOTS}shots/DATASET/seedSEED, with another source than
# imagenet below $OUTPUT/evaluation/from_$SOURCE. A finished run is skipped.
# Environment: DATA (required), SOURCE=imagenet, CFG, SHOTS=16 (of the source), OUTPUT=output, LOADEP.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/transfer.sh"
case "${1:-}" in -h | --help) show_help ;; esac
[ $# -ge 3 ] || fail "usage: $0 TRAINER DATASET SEED [KEY VALUE ...] (--help explains)"
case $2 in
    imagenetv2 | imagenet_sketch | imagenet_a | imagenet_r) ;;
    *) fail "$2 is no variant of ImageNet: imagenetv2, imagenet_sketch, imagenet_a, imagenet_r" ;;
esac
test_on "$@"
