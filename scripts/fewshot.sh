#!/usr/bin/env bash
# Few-shot: train on 1, 2, 4, 8 and 16 images of each class, test on all classes.
#
# usage: DATA=... bash scripts/fewshot.sh TRAINER DATASET ["SEEDS" [KEY VALUE ...]]
#        bash scripts/fewshot.sh CDC handwritten_digits
#        SHOTS="1 16" bash scripts/fewshot.sh CoOp caltech101 "1 2 3"
#
# Writes $OUTPUT/DATASET/TRAINER/${CFG}_Kshots/seedN, for CoOp as it publishes them
# .../${CFG}_Kshots/nctx${NCTX}_csc${CSC}_ctp${CTP}/seedN, and prints the table. A finished run is
# skipped, an interrupted one resumes. Curves: python scripts/summarize.py $OUTPUT --plot FOLDER
# Environment: DATA (required), CFG, SHOTS="1 2 4 8 16", SEEDS="1 2 3", OUTPUT=output, TABLE=yes;
# for CoOp NCTX=16 context words (4 where the configuration starts from "a photo of a"), CSC=False
# (a context for each class), CTP=end (or middle, front). KEY VALUE pairs go to the configuration.
set -euo pipefail
SHOTS=${SHOTS:-1 2 4 8 16}
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
case "${1:-}" in -h | --help) show_help ;; esac
[ $# -ge 2 ] || fail "usage: $0 TRAINER DATASET [\"SEEDS\" [KEY VALUE ...]] (--help explains)"
trainer=$1 dataset=$2 seeds=${3:-$SEEDS} shots_list=$SHOTS given_cfg=${CFG:-}
shift $(($# < 3 ? $# : 3))
require_seeds "$seeds"
for shots in $SHOTS; do require_shots "$shots"; done
require_data
require_dataset "$dataset"

# options_of CFG: the array `options`, and `folder`, which tells them apart in CoOp's layout.
options_of() {
    options=() folder=
    case $trainer in
        CoOp)
            local words=${NCTX:-16}
            case $1 in *ctxv1 | tiny) words=4 ;; esac
            folder=/nctx${words}_csc${CSC:-False}_ctp${CTP:-end}
            options=(
                TRAINER.COOP.N_CTX "$words" TRAINER.COOP.CSC "${CSC:-False}"
                TRAINER.COOP.CLASS_TOKEN_POSITION "${CTP:-end}"
            )
            ;;
        PromptSRC) # published: the prompts of the last epochs count more on the fine-grained sets
            case $dataset in
                stanford_cars | oxford_flowers | fgvc_aircraft | dtd | eurosat)
                    options=(TRAINER.PROMPTSRC.GPA_MEAN 45. TRAINER.PROMPTSRC.GPA_STD 5.)
                    ;;
            esac
            ;;
    esac
}

for seed in $seeds; do
    for SHOTS in $shots_list; do
        CFG=$given_cfg
        choose_cfg "$trainer" "$dataset" fewshot
        options_of "$CFG"
        run_once "$OUTPUT/$dataset/$trainer/${CFG}_${SHOTS}shots$folder/seed$seed" \
            --seed "$seed" --trainer "$trainer" \
            --dataset-config-file "configs/datasets/$dataset.yaml" \
            --config-file "configs/trainers/$trainer/$CFG.yaml" \
            ${BACKBONE:+--config-file "configs/backbones/$BACKBONE.yaml"} \
            DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES all \
            ${options[@]+"${options[@]}"} "$@"
    done
done
[ "${TABLE:-yes}" = no ] || python scripts/summarize.py "$OUTPUT/$dataset" --protocol fewshot
