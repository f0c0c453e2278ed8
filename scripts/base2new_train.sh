#!/usr/bin/env bash
# Base-to-novel, first half: train on the base classes, test on them.
#
# usage: DATA=... bash scripts/base2new_train.sh TRAINER DATASET SEED [KEY VALUE ...]
#        bash scripts/base2new_train.sh CDC handwritten_digits 1
#
# Writes $OUTPUT/base2new/train_base/DATASET/shots_$SHOTS/TRAINER/$CFG/seedSEED (results.json holds
# the base accuracy). A finished run is skipped, an interrupted one resumes.
# Environment: DATA (required), CFG, SHOTS=16, OUTPUT=output; KEY VALUE pairs go to the configuration.
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

run_once "$OUTPUT/base2new/train_base/$dataset/shots_$SHOTS/$trainer/$CFG/seed$seed" \
    --seed "$seed" --trainer "$trainer" \
    --dataset-config-file "configs/datasets/$dataset.yaml" \
    --config-file "configs/trainers/$trainer/$CFG.yaml" \
    ${BACKBONE:+--config-file "configs/backbones/$BACKBONE.yaml"} \
    DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES base "$@"
