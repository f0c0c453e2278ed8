#!/usr/bin/env bash
# The main job on bundled defaults: no download of weights or data.
#
# usage: bash scripts/quickstart.sh [--all | --help]
#
# Makes .venv unless an environment is active, installs, builds the bundled data, then with the
# bundled `tiny` CLIP and progress all along
#   1. base-to-novel on HandwrittenDigits (real scans), 16 shots, seeds 1 2 3, for ZeroshotCLIP, CoOp,
#      CoCoOp, MaPLe and CDC (--all: every method whose classes are named by text);
#   2. leave one domain out on CausalShapes, 16 shots a class and domain, 5 epochs, seed 1, for
#      ZeroshotCLIP, LinearProbe, CoOp, MaPLe, CDC and CLIP_ICM;
# and prints one table for each. What is finished is skipped and said so: a second call only prints.
#
# Environment: DATA=data, OUTPUT=output/quickstart, SEEDS="1 2 3", METHODS="..." and
# LODO_METHODS="..." in place of the lists above, PYTHON=python3.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
methods="ZeroshotCLIP CoOp CoCoOp MaPLe CDC"
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --all) methods="ZeroshotCLIP ZeroshotCLIP2 CoOp CoCoOp KgCoOp VPT IVLP MaPLe PromptSRC CLIP_Adapter CDC" ;;
    "") ;;
    *) echo "quickstart.sh: unknown argument $1 (--help explains)" >&2; exit 2 ;;
esac
. "$here/environment.sh"

export DATA=${DATA:-data} OUTPUT=${OUTPUT:-output/quickstart} PROGRESS=brief
methods=${METHODS-$methods}
lodo_methods=${LODO_METHODS-ZeroshotCLIP LinearProbe CoOp MaPLe CDC CLIP_ICM}
seeds=${SEEDS:-1 2 3}
mkdir -p "$DATA"
start=$SECONDS
count() { set -- $1; echo $#; }

total=$(($(count "$methods") * $(count "$seeds"))) number=0
for seed in $seeds; do
    for method in $methods; do
        number=$((number + 1))
        echo "=== base-to-novel $number/$total: $method, seed $seed ==="
        bash "$here/base2new_train.sh" "$method" handwritten_digits "$seed"
        bash "$here/base2new_test.sh" "$method" handwritten_digits "$seed"
    done
done
echo "base-to-novel: $((SECONDS - start)) s"

total=$(count "$lodo_methods") number=0
for method in $lodo_methods; do
    number=$((number + 1))
    echo "=== leave one domain out $number/$total: $method ==="
    SHOTS=16 TABLE=no bash "$here/lodo.sh" "$method" causal_shapes 1 OPTIM.MAX_EPOCH 5
done

python scripts/summarize.py "$OUTPUT"
echo
echo "Finished in $((SECONDS - start)) s. Every run's log.txt, checkpoints, results.json and predictions.npz:"
echo "  $OUTPUT/base2new/{train_base,test_new}/handwritten_digits/shots_16/METHOD/CONFIG/seedN/"
echo "  $OUTPUT/lodo/causal_shapes/shots_16/DOMAIN/METHOD/CONFIG/seed1/"
