#!/usr/bin/env bash
# Cross-dataset and domain generalisation, first half: train on all classes of the source, test on it.
#
# usage: DATA=... bash scripts/xd_train.sh TRAINER SEED [KEY VALUE ...]
#        bash scripts/xd_train.sh CDC 1
#        SOURCE=caltech101 bash scripts/xd_train.sh CoOp 1
#
# Writes $OUTPUT/$SOURCE/TRAINER/${CFG}_${SHOTS}shots/seedSEED. A finished run is skipped, an
# interrupted one resumes.
# Environment: DATA (required), SOURCE=imagenet, CFG, SHOTS=16, OUTPUT=output. KEY VALUE pairs change
# the configuration and are in the folder's name: $CFG,KEY=VALUE. Pass the same pairs to the test.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
