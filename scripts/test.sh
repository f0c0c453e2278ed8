#!/usr/bin/env bash
# All tests: ruff and pytest, in the same environment as quickstart.sh. Arguments go to pytest.
set -euo pipefail
if [ "${1:-}" = --help ]; then sed -n '2,2s/^# //p' "$0"; exit; fi
here="$(dirname "${BASH_SOURCE[0]}")"
. "$here/environment.sh"
ruff check .
exec python -m pytest "$@"
