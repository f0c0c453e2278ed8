#!/usr/bin/env bash
# Base-to-novel, second half: the prompts trained on the base classes, tested on the new ones.
#
# usage: DATA=... bash scripts/base2new_test.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/base2new_test.sh CDC handwritten_digits 1
#
# Reads what base2new_train.sh wrote; writes
# $OUTPUT/base2new/test_new/DATASET/shots_$SHOTS/TRAINER/$CFG/seedSEED (results.json holds the
# accuracy on the new classes). LOADEP names the epoch to load (default: best, else last).
# Environment: DATA (required), CFG, SHOTS=16, OUTPUT=output, LOADEP.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
case "${1:-}" in -h | --help) show_help ;; esac
[ $# -ge 3 ] || fail "usage: $0 TRAINER DATASET SEED [KEY VALUE ...] (--help explains)"
trainer=$1 dataset=$2 seed=$3
shift 3
require_seed "$seed"
require_shots "$SHOTS"
require_data
require_dataset "$dataset"
choose_cfg "$trainer" "$dataset" base2new
common="$dataset/shots_$SHOTS/$trainer/$CFG/seed$seed"
[ -f "$OUTPUT/base2new/train_base/$common/results.json" ] ||
    fail "nothing trained in $OUTPUT/base2new/train_base/$common: run base2new_train.sh first"

run_once "$OUTPUT/base2new/test_new/$common" \
    --seed "$seed" --trainer "$trainer" \
    --dataset-config-file "configs/datasets/$dataset.yaml" \
    --config-file "configs/trainers/$trainer/$CFG.yaml" \
    ${BACKBONE:+--config-file "configs/backbones/$BACKBONE.yaml"} \
    --model-dir "$OUTPUT/base2new/train_base/$common" ${LOADEP:+--load-epoch "$LOADEP"} \
    --eval-only DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES new "$@"
