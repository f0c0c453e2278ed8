#!/usr/bin/env bash
# All tests: ruff, pyright and pytest on every core, in the same environment as quickstart.sh. Arguments go to pytest.
set -euo pipefail
if [ "${1:-}" = --help ]; then sed -n '2,2s/^# //p' "$0"; exit; fi
here="$(dirname "${BASH_SOURCE[0]}")"
. "$here/environment.sh"
ruff check .
ruff format --check .
basedpyright
basedpyright --project tests  # imports only
export OMP_NUM_THREADS=1  # one thread a process and several processes, not the product
# In the order of tests/conftest.py: the modules that take longest first.
exec python -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder "$@"
