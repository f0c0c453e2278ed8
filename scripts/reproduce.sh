#!/usr/bin/env bash
# Reproduce a published table: every run of a protocol, then our results next to the published ones.
#
# usage: DATA=... bash scripts/reproduce.sh METHOD PROTOCOL [--dry-run] [KEY VALUE ...]
#        bash scripts/reproduce.sh MaPLe base2new --dry-run
#        SEEDS=1 DATASETS="dtd eurosat" bash scripts/reproduce.sh CoCoOp base2new
#
# METHOD: a trainer with its published recipe (configs/trainers/METHOD), ZeroshotCLIP for CLIP.
# PROTOCOL: base2new  eleven data sets, base classes to new ones
#           xd        ImageNet to the ten others
#           dg        ImageNet to its four variants
#           fewshot   eleven data sets, 1 2 4 8 16 images a class
#           lodo      five DomainBed sets, one domain left out
#           openclass the same, with classes that were not trained on
# --dry-run prints the commands and runs nothing. A run that is finished is skipped, an interrupted
# one resumes: after a stop, call it again.
# Environment: DATA (required), DATASETS (those above), SEEDS="1 2 3", CFG, SHOTS, SOURCE=imagenet,
# OUTPUT=output. KEY VALUE pairs change the configuration and are in the folders' names: $CFG,KEY=VALUE.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
