# shellcheck shell=bash
# Sourced by the protocol scripts: prints the help at the top of the calling script, or runs the
# protocol (causalclip/runs/scripts.py) with the code of this checkout.
#
#   DATA    folder of the data sets (required)
#   CFG     tiny, published, a configuration below configs/trainers/TRAINER/, without .yaml, or a YAML
#           of your own (default: by the backbone, else the published one)
#   SHOTS   images per class (default 16)
#   OUTPUT  where everything is written (default output)
#   SEEDS   seeds of scripts that take several (default "1 2 3")
#   BACKBONE  a CLIP to use instead of the recipe's: a file below configs/backbones/, without .yaml,
#           a name, weights or a YAML; results go to a folder with its name below $OUTPUT
# Folders are relative to the current folder.

case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;; esac
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -f "$root/.venv/bin/activate" ]; then
    # shellcheck source=/dev/null
    . "$root/.venv/bin/activate"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec python -m causalclip script "$(basename "$0" .sh)" "$@"
