#!/usr/bin/env bash
# The tables of baselines.py, text_tower.py and limit.py on a CUDA device.
#
# usage: bash benchmarks/gpu.sh [tiny | vit-b32 | vit-b16 | --help]
#
# Each in fp32, fp16, bf16 and amp, without and with torch.compile of ours: milliseconds, ratios,
# images per second and the peak of the memory taken, published and ours, with 10, 100 and 1,000
# names; the shape is vit-b16 unless another is given. A table that fails (for want of memory, say)
# is named on stderr, the others go on, and the status is 1. Without a CUDA device it is 2.
set -euo pipefail
case "${1:-vit-b16}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    tiny | vit-b32 | vit-b16) shape=${1:-vit-b16} ;;
    *) echo "gpu.sh: the shape must be tiny, vit-b32 or vit-b16, got $1" >&2; exit 2 ;;
esac
here="$(dirname "${BASH_SOURCE[0]}")"

device=$(python -c 'import torch; print(torch.cuda.is_available() and torch.cuda.get_device_name())')
if [ "$device" = False ]; then
    echo "gpu.sh: torch finds no CUDA device on this machine; the CPU's tables are in docs/speed.md" >&2
    exit 2
fi
echo "$device, $(python -c 'import torch; print("torch", torch.__version__)')"

failed=0
# A process for each table: what one takes or leaves is nothing to the next.
table() {
    local script=$1
    shift
    python "$here/$script" "$@" --device cuda --precision "$precision" $compile || {
        echo "gpu.sh: failed: $script $* --precision $precision $compile" >&2
        failed=1
    }
}

for precision in fp32 fp16 bf16 amp; do
    for compile in "" --compile; do
        for classes in 100 1000; do
            table baselines.py --shape "$shape" --only step --classes $classes
            table text_tower.py --shape "$shape" --classes $classes
        done
        table baselines.py --shape "$shape" --only evaluation
        for classes in 10 100 1000; do
            table limit.py --shapes "$shape" --classes $classes --run-at-most 1e13
        done
    done
done
exit $failed
