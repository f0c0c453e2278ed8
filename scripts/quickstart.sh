#!/usr/bin/env bash
# The main experiments on bundled weights and data, without downloading others.
#
# usage: bash scripts/quickstart.sh [--all | --help]
#
# Makes .venv unless an environment is active, installs causalclip and builds the bundled data.
# Then runs, with the bundled `tiny` CLIP,
#   1. base-to-novel on HandwrittenDigits (real scans), 16 shots, seeds 1 2 3, for ZeroshotCLIP, CoOp,
#      CoCoOp, MaPLe and CDC (--all: every method whose classes are named by text);
#   2. leave one domain out on CausalShapes, 16 shots per class and domain, 5 epochs, seed 1, for
#      ZeroshotCLIP, LinearProbe, CoOp, MaPLe, CDC and CLIP_ICM (--all: ProGrad, TCP, MMRL and MMA too);
# and prints one table for each, and writes them with figures and images as one HTML page,
# $OUTPUT/report.html. Finished runs are skipped with a message: a second call only prints, and
# writes the page again.
# Runs are parallel, one per core; log.txt next to each result contains the output of the run.
#
# Environment: DATA=data, OUTPUT=output/quickstart, SEEDS="1 2 3", METHODS="..." and
# LODO_METHODS="..." in place of the lists above, JOBS=(cores), PYTHON=python3, EXTRAS=ray,... for
# extras of pyproject.toml.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
methods="ZeroshotCLIP CoOp CoCoOp MaPLe CDC"
lodo="ZeroshotCLIP LinearProbe CoOp MaPLe CDC CLIP_ICM"
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --all)
        methods="ZeroshotCLIP ZeroshotCLIP2 CoOp CoCoOp KgCoOp ProGrad TCP VPT IVLP MaPLe PromptSRC MMRL MMA CLIP_Adapter CDC"
        lodo="$lodo ProGrad TCP MMRL MMA" ;;
    "") ;;
    *) echo "quickstart.sh: unknown argument $1 (--help explains)" >&2; exit 2 ;;
esac
. "$here/environment.sh"

data=${DATA:-data} output=${OUTPUT:-output/quickstart} jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
methods=${METHODS-$methods}
lodo_methods=${LODO_METHODS-$lodo}
mkdir -p "$data"
start=$SECONDS

protocol() { python -m causalclip run "$@" --data "$data" --output "$output" --jobs "$jobs" --show runs; }

if [ -n "$methods" ]; then
    echo "=== base-to-novel: $methods ==="
    # shellcheck disable=SC2086  # lists of words
    protocol base2new --methods $methods --datasets handwritten_digits --seeds ${SEEDS:-1 2 3}
fi
if [ -n "$lodo_methods" ]; then
    echo
    echo "=== leave one domain out: $lodo_methods ==="
    # shellcheck disable=SC2086
    protocol lodo --methods $lodo_methods --datasets causal_shapes --seeds 1 --shots 16 OPTIM.MAX_EPOCH 5
fi
echo
python -m causalclip report "$output" --data "$data"
echo "Finished in $((SECONDS - start)) s. Every run's log.txt, checkpoints, results.json and predictions.npz:"
echo "  $output/base2new/{train_base,test_new}/handwritten_digits/shots_16/METHOD/CONFIG/seedN/"
echo "  $output/lodo/causal_shapes/shots_16/DOMAIN/METHOD/CONFIG,MAX_EPOCH=5/seed1/"
