#!/usr/bin/env bash
# Leave one domain out: train on all domains but one, test on that one; for every domain in turn.
#
# usage: DATA=... bash scripts/lodo.sh TRAINER DATASET ["SEEDS" [KEY VALUE ...]]
#        bash scripts/lodo.sh CLIP_ICM causal_shapes
#        SHOTS=16 bash scripts/lodo.sh CoOp domainbed_pacs "1 2 3" OPTIM.MAX_EPOCH 10
#
# Writes $OUTPUT/lodo/DATASET/shots_$SHOTS/TARGET/TRAINER/$CFG/seedN and prints a table with one
# column per target, their average and the worst. A finished run is skipped.
# Environment: DATA (required), CFG, SHOTS=all (or images per class and domain), SEEDS="1 2 3",
# OUTPUT=output, TABLE=yes. KEY VALUE pairs change the configuration and are in the folder's name:
# $CFG,KEY=VALUE.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
