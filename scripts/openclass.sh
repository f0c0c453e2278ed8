#!/usr/bin/env bash
# Open class: train on the base classes of all domains but one; test on that domain's base and open
# classes against all names. For every domain in turn.
#
# usage: DATA=... bash scripts/openclass.sh TRAINER DATASET ["SEEDS" [KEY VALUE ...]]
#        bash scripts/openclass.sh CLIP_ICM causal_shapes
#        SHOTS=16 bash scripts/openclass.sh MaPLe domainbed_pacs "1 2 3"
#
# Base classes are the first half of the class list. Writes
# $OUTPUT/openclass/{train,test}/DATASET/shots_$SHOTS/TARGET/TRAINER/$CFG/seedN and prints the table
# of `test`: the parts base and open, all images, and HM. A finished run is skipped.
# A linear probe has no open classes and is refused.
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
[ "$trainer" != LinearProbe ] ||
    fail "LinearProbe cannot name open classes: use ZeroshotCLIP, CLIP_ICM or a prompt method"
require_data
require_dataset "$dataset"
choose_cfg "$trainer" "$dataset" openclass
read_domains "$dataset"

for seed in $seeds; do
    for target in "${domains[@]}"; do
        sources_for "$target"
        run="$dataset/shots_$SHOTS/$target/$trainer/$CFG/seed$seed"
        common=(
            --source-domains "${sources[@]}" --target-domains "$target"  # lists end at the next flag
            --seed "$seed" --trainer "$trainer"
            --dataset-config-file "configs/datasets/$dataset.yaml"
            --config-file "configs/trainers/$trainer/$CFG.yaml"
            ${BACKBONE:+--config-file "configs/backbones/$BACKBONE.yaml"}
        )
        run_once "$OUTPUT/openclass/train/$run" "${common[@]}" \
            DATASET.NUM_SHOTS "${SHOTS/all/-1}" DATASET.SUBSAMPLE_CLASSES base "$@"
        run_once "$OUTPUT/openclass/test/$run" "${common[@]}" \
            --eval-only --model-dir "$OUTPUT/openclass/train/$run" \
            DATASET.NUM_SHOTS "${SHOTS/all/-1}" DATASET.SUBSAMPLE_CLASSES all "$@"
    done
done
[ "${TABLE:-yes}" = no ] || python scripts/summarize.py "$OUTPUT/openclass/test/$dataset/shots_$SHOTS"
