# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: installs causalclip once, with the extras in $EXTRAS
# (pyproject.toml lists them).
# Uses the active environment (venv or conda) if there is one, else makes .venv next to setup.py.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        python=${PYTHON:-python3}
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
            echo "Python >= 3.10 is needed, $python is $("$python" --version 2>&1); name another by PYTHON=..." >&2
            exit 2
        }
        echo "Making the virtual environment .venv"
        "$python" -m venv .venv || {
            echo "could not make .venv: on Debian and Ubuntu, install the package python3-venv" >&2
            exit 2
        }
    fi
    # shellcheck source=/dev/null
    . .venv/bin/activate
fi

# Install again only if the requirements, the extras or the folder have changed.
stamp="$(python -c 'import sys; print(sys.prefix)')/causalclip-installed"
asked="${LOCKED:+requirements.lock}"
# shellcheck disable=SC2086  # a word or none
wanted="$(cat pyproject.toml setup.py $asked | cksum) $PWD"
installed="$(cat "$stamp" 2>/dev/null || true)"
if [ "$installed" != "$wanted ${EXTRAS:-}" ] && [ "$installed" != "$wanted test" ]; then
    echo "Installing (a few minutes: PyTorch is about 5 GB)"
    install="python -m pip install --disable-pip-version-check --progress-bar off"
    if [ -n "$asked" ]; then  # LOCKED=1, as in CI: install exactly the versions and hashes of the lock
        $install --require-hashes -r requirements.lock
        $install --no-deps --no-build-isolation -e .
    else
        $install -e ".${EXTRAS:+[$EXTRAS]}"
    fi
    echo "$wanted ${EXTRAS:-}" > "$stamp"
fi
