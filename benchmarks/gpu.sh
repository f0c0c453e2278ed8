#!/usr/bin/env bash
# Correctness and speed on a CUDA device, in at most ten minutes.
#
# usage: bash benchmarks/gpu.sh [tiny | vit-b32 | vit-b16 | --dry-run | --help] | tee gpu.txt
#
# First compares each method on the GPU and the CPU (device_check.py), then prints the tables of
# limit.py, baselines.py and text_tower.py with 10, 100 and 1,000 names in fp32, fp16, bf16 and
# amp, without and with torch.compile of ours: milliseconds, ratios, images per second and the peak
# memory, published and ours. The shape is vit-b16 unless another is given. --dry-run runs a small
# check and two small tables on the CPU. A table that fails (for example, out of memory) is named on
# stderr, the other tables continue, and the status is 1; so it is for tables that are not started
# within BUDGET seconds (600).
# Without a CUDA device the status is 2.
set -euo pipefail
device=cuda shape=vit-b16 precisions="fp32 fp16 bf16 amp" sizes="100 10 1000" compiles="no yes"
methods=()
case "${1:-vit-b16}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --dry-run) device=cpu shape=tiny precisions=fp32 sizes=10 compiles=no methods=(--methods CoOp) ;;
    tiny | vit-b32 | vit-b16) shape=${1:-vit-b16} ;;
    *) echo "gpu.sh: the shape must be tiny, vit-b32 or vit-b16, got $1" >&2; exit 2 ;;
esac
here="$(dirname "${BASH_SOURCE[0]}")"
budget=${BUDGET:-600}

name=$(python -c 'import torch; print(torch.cuda.is_available() and torch.cuda.get_device_name())')
if [ "$device" = cuda ] && [ "$name" = False ]; then
    echo "gpu.sh: torch finds no CUDA device on this machine; the CPU's tables are in docs/speed.md" >&2
    exit 2
fi
[ "$device" = cuda ] || name=CPU
echo "$name, $(python -c 'import torch; print("torch", torch.__version__)')"

failed=0
# Each table has its own process, so that none affects the memory or the state of the next.
table() {
    local left=$((budget - SECONDS)) script=$1
    shift
    if [ "$left" -le 0 ]; then
        echo "gpu.sh: no time left for: $script $*" >&2
        failed=1
        return
    fi
    echo "== $script $* (after $SECONDS s)"
    timeout "$left" python "$here/$script" "$@" || {
        echo "gpu.sh: failed: $script $*" >&2
        failed=1
    }
}

table device_check.py --device "$device" "${methods[@]}"
for classes in $sizes; do
    for precision in $precisions; do
        for compile in $compiles; do
            options=(--classes "$classes" --device "$device" --precision "$precision")
            [ "$compile" = no ] || options+=(--compile)
            table limit.py --shapes "$shape" --run-at-most 1e13 "${options[@]}"
            [ "$classes" = 10 ] || table baselines.py --shape "$shape" --only step "${options[@]}"
            table text_tower.py --shape "$shape" "${options[@]}"
        done
    done
done
exit $failed
