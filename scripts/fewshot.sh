#!/usr/bin/env bash
# Few-shot: train on 1, 2, 4, 8 and 16 images of each class, test on all classes.
#
# usage: DATA=... bash scripts/fewshot.sh TRAINER DATASET ["SEEDS" [KEY VALUE ...]]
#        bash scripts/fewshot.sh CDC handwritten_digits
#        SHOTS="1 16" bash scripts/fewshot.sh CoOp caltech101 "1 2 3"
#
# Writes $OUTPUT/DATASET/TRAINER/${CFG}_Kshots/seedN, for CoOp as in its own scripts
# .../${CFG}_Kshots/nctx${NCTX}_csc${CSC}_ctp${CTP}/seedN, and prints the table. A finished run is
# skipped, an interrupted one resumes. To draw curves: causalclip summarize $OUTPUT --plot FOLDER
# Environment: DATA (required), CFG, SHOTS="1 2 4 8 16", SEEDS="1 2 3", OUTPUT=output, TABLE=yes;
# for CoOp NCTX=16 context words (4 where the configuration starts from "a photo of a"), CSC=False
# (a context for each class), CTP=end (or middle, front). KEY VALUE pairs change the configuration
# and are in the folder's name: ${CFG},KEY=VALUE.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
