#!/usr/bin/env bash
# The main job on bundled defaults: no download of weights or data.
#
# usage: bash scripts/quickstart.sh [--help]
#
# Makes .venv unless an environment is active, installs, builds the bundled data (real scans of
# handwritten digits, as images), then runs base-to-novel on HandwrittenDigits (16 shots, seeds
# 1 2 3) for ZeroshotCLIP, CoOp, MaPLe and CDC with the bundled `tiny` CLIP, and prints one table.
# What is finished is skipped; a second call prints the table at once.
#
# Environment: DATA=data, OUTPUT=output/quickstart, SEEDS="1 2 3", PYTHON=python3.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    "") ;;
    *) echo "quickstart.sh: unknown argument $1 (--help explains)" >&2; exit 2 ;;
esac
. "$here/environment.sh"

export DATA=${DATA:-data} OUTPUT=${OUTPUT:-output/quickstart}
export PYTHONWARNINGS=ignore::DeprecationWarning
mkdir -p "$DATA"
start=$SECONDS
methods="ZeroshotCLIP CoOp MaPLe CDC"
seeds=${SEEDS:-1 2 3}
total=$(($(wc -w <<<"$methods") * $(wc -w <<<"$seeds"))) done=0
for seed in $seeds; do
    for method in $methods; do
        done=$((done + 1))
        echo "=== $done/$total: $method on HandwrittenDigits, seed $seed ==="
        bash "$here/base2new_train.sh" "$method" handwritten_digits "$seed"
        bash "$here/base2new_test.sh" "$method" handwritten_digits "$seed"
    done
done

python scripts/summarize.py "$OUTPUT"
echo
echo "Finished in $((SECONDS - start)) s. Each run's log.txt, checkpoints, results.json and predictions.npz:"
echo "  $OUTPUT/base2new/{train_base,test_new}/handwritten_digits/shots_16/METHOD/CONFIG/seedN/"
