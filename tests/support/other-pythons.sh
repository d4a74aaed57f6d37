#!/bin/sh
# Runs the unit tests, compiled, on every supported Python found besides $PYTHON; each has a virtual environment of
# its own below .cache/. No other Python: nothing to do.
set -eu
version='import sys; print("%d.%d" % sys.version_info[:2])'
main=$("${PYTHON:-python3}" -c "$version")

locate() {
    for candidate in "$(command -v "python$1" || true)" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        # A pyenv shim is there for versions that are not selected too, and only fails.
        if [ -n "$candidate" ] && [ "$("$candidate" -c "$version" 2>/dev/null)" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done
}

status=0
for wanted in 3.11 3.12 3.13; do
    [ "$wanted" = "$main" ] && continue
    found=$(locate "$wanted")
    if [ -z "$found" ]; then
        echo "== Python $wanted: not on this machine"
        continue
    fi
    echo "== unit tests on Python $wanted"
    venv=".cache/python$wanted"
    # Apart from `make test`'s files: it builds a wheel for this Python.
    make --no-print-directory VENV="$venv" PYTHON="$found" BUILD="build/python$wanted" "$venv/.test"
    form=$(cat "$venv/.form")
    PYTHONPATH='' PGSLUICE_TEST_FORM="$form" "$venv/bin/pytest" -q -m unit tests/protocol tests/proxy || status=1
done
exit $status
