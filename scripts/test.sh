#!/usr/bin/env bash
# All tests: ruff, pyright, shellcheck and pytest on every core, in the same environment as quickstart.sh. Arguments go to pytest.
set -euo pipefail
if [ "${1:-}" = --help ]; then sed -n '2,2s/^# //p' "$0"; exit; fi
here="$(dirname "${BASH_SOURCE[0]}")"
EXTRAS="test" . "$here/environment.sh"
ruff check .
ruff format --check .
shellcheck scripts/*.sh scripts/ray.sbatch benchmarks/*.sh .ci/run
# Runs during the tests, on one core for half a minute. Its findings are printed at the end.
found="$(mktemp)"
basedpyright --level warning > "$found" 2>&1 &
pyright=$!
trap 'kill "$pyright" 2> /dev/null || true; rm -f "$found"' EXIT
export OMP_NUM_THREADS=1  # one thread per process, as several processes run at once
unset PYTHONDONTWRITEBYTECODE  # otherwise every process compiles all modules itself
status=0
# In the order of tests/conftest.py: the modules that take longest first.
python -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder "$@" || status=$?
wait "$pyright" || status=$((status ? status : 1))
sed 's/^/pyright: /' "$found"
exit "$status"
