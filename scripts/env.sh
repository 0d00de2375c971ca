#!/bin/sh
# Make .venv: Python 3.10 to 3.12 with every dependency pinned by version and SHA-256 (requirements.lock).
set -eu
cd "$(dirname "$0")/.."

say() { echo "env: $*" >&2; }

# Debian packages, where the user may install them; otherwise the line to type.
debian() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $*"
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$@"; } >/dev/null
    else
        say "missing: $*. Fix: sudo apt-get install $*"
        exit 1
    fi
}

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.10 python3; do
        path=$(command -v "$candidate") || continue
        if "$path" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$path"
            return
        fi
    done
}

python=$(find_python)
if [ -z "$python" ]; then
    debian python3
    python=$(find_python)
    [ -n "$python" ] || { say "no Python 3.10, 3.11 or 3.12 found. Fix: install one, or make PYTHON=/path/to/python3.11"; exit 1; }
fi

if command -v uv >/dev/null; then
    uv=uv
    $uv venv --quiet --clear --python "$python" .venv
else
    "$python" -c 'import ensurepip' 2>/dev/null || debian python3-venv
    "$python" -m venv --clear .venv
    awk '/^[^ ]/ { wanted = /^uv==/ } wanted' requirements.lock >.venv/uv.lock
    .venv/bin/python -m pip install --quiet --require-hashes --no-deps -r .venv/uv.lock
    uv=.venv/bin/uv
fi

VIRTUAL_ENV=$PWD/.venv
export VIRTUAL_ENV
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    say "installing the pinned dependencies into .venv (once, about 2 GB)"
    # compiled once: where Python may not write bytecode, each process would compile 2,900 modules
    $uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
    $uv pip install --quiet --no-deps --no-build-isolation --editable .
else
    say "$(uname -sm) has no lock file: resolving the dependencies afresh"
    $uv pip install --quiet --compile-bytecode --editable '.[dev]'
fi
touch .venv/.ready
