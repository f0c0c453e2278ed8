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
# A method that cannot name other classes (LinearProbe, TipAdapter) is refused.
# Environment: DATA (required), CFG, SHOTS=all (or images per class and domain), SEEDS="1 2 3",
# OUTPUT=output, TABLE=yes. KEY VALUE pairs change the configuration and are in the folder's name:
# $CFG,KEY=VALUE.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
