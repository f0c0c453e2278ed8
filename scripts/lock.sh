#!/usr/bin/env bash
# Renews requirements.lock after a change of pyproject.toml: pip install uv, then bash scripts/lock.sh
# What the lock has stays where it fits; with --upgrade everything is the newest. Arguments go to uv.
set -euo pipefail
if [ "${1:-}" = --help ]; then sed -n '2,3s/^# //p' "$0"; exit; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# For every Python and system at once; where it came from is the reader's own affair.
uv pip compile --quiet --universal --python-version 3.10 --extra test --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate \
    --custom-compile-command "bash scripts/lock.sh" --output-file requirements.lock "$@" \
    pyproject.toml >/dev/null
