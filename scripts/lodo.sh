#!/usr/bin/env bash
# Leave one domain out: train on all domains but one, test on that one; for every domain in turn.
#
# usage: DATA=... bash scripts/lodo.sh TRAINER DATASET ["SEEDS" [KEY VALUE ...]]
#        bash scripts/lodo.sh CLIP_ICM causal_shapes
#        SHOTS=16 bash scripts/lodo.sh CoOp domainbed_pacs "1 2 3" OPTIM.MAX_EPOCH 10
#
# Writes $OUTPUT/lodo/DATASET/shots_$SHOTS/TARGET/TRAINER/$CFG/seedN and prints a table with one
# column a target, their average and the worst. A finished run is skipped.
# Environment: DATA (required), CFG, SHOTS=all (or images a class and domain), SEEDS="1 2 3",
# OUTPUT=output, TABLE=yes; KEY VALUE pairs go to the configuration.
set -euo pipefail
SHOTS=${SHOTS:-all}
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
case "${1:-}" in -h | --help) show_help ;; esac
[ $# -ge 2 ] || fail "usage: $0 TRAINER DATASET [\"SEEDS\" [KEY VALUE ...]] (--help explains)"
trainer=$1 dataset=$2 seeds=${3:-$SEEDS}
shift $(($# < 3 ? $# : 3))
require_seeds "$seeds"
[ "$SHOTS" = all ] || require_shots "$SHOTS" all
require_data
require_dataset "$dataset"
choose_cfg "$trainer" "$dataset" lodo
read_domains "$dataset"

for seed in $seeds; do
    for target in "${domains[@]}"; do
        sources_for "$target"
        run_once "$OUTPUT/lodo/$dataset/shots_$SHOTS/$target/$trainer/$CFG/seed$seed" \
            --source-domains "${sources[@]}" --target-domains "$target" \
            --seed "$seed" --trainer "$trainer" \
            --dataset-config-file "configs/datasets/$dataset.yaml" \
            --config-file "configs/trainers/$trainer/$CFG.yaml" \
            ${BACKBONE:+--config-file "configs/backbones/$BACKBONE.yaml"} \
            DATASET.NUM_SHOTS "${SHOTS/all/-1}" "$@"
    done
done
[ "${TABLE:-yes}" = no ] || python scripts/summarize.py "$OUTPUT/lodo/$dataset/shots_$SHOTS"
