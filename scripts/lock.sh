#!/usr/bin/env bash
# Renews requirements.lock after a change of pyproject.toml: pip install uv, then bash scripts/lock.sh
# Locked versions stay if they still fit; --upgrade takes the newest ones. Arguments go to uv.
set -euo pipefail
if [ "${1:-}" = --help ]; then sed -n '2,3s/^# //p' "$0"; exit; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# One lock for every Python and system, without the URLs of the package indexes.
uv pip compile --quiet --universal --python-version 3.10 --extra test --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate \
    --custom-compile-command "bash scripts/lock.sh" --output-file requirements.lock "$@" \
    pyproject.toml >/dev/null
