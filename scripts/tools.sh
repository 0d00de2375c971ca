#!/bin/sh
# Get the compilers and the emulator that boards need, where the user may install packages;
# otherwise say the line to type, and go on without them. `tools.sh test` also gets what only tests
# need: a browser, and the linter of the workflows.
set -eu

say() { echo "tools: $*" >&2; }

missing=
lacks() { command -v "$1" >/dev/null || missing="$missing $2"; }
lacks make make
lacks cc gcc
lacks c++ g++
lacks arm-none-eabi-gcc gcc-arm-none-eabi
case $(arm-none-eabi-gcc -print-file-name=nano.specs 2>/dev/null || true) in
    */*) ;;
    *) missing="$missing libnewlib-arm-none-eabi" ;;
esac
lacks qemu-system-arm qemu-system-arm
[ "${1:-}" != test ] || command -v google-chrome >/dev/null || lacks chromium chromium

if [ -n "$missing" ]; then
    install="apt-get install --no-install-recommends"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing$missing"
        # shellcheck disable=SC2086
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive $install -qq -y $missing; } >/dev/null ||
            say "that failed; what needs them is left out"
    else
        say "missing:$missing. Fix: sudo $install$missing"
    fi
fi

lint=$(dirname "$0")/../tests/ci/lint
if [ "${1:-}" = test ] && command -v npm >/dev/null && [ ! -d "$lint/node_modules" ]; then
    npm ci --silent --prefix "$lint" >/dev/null || say "npm ci in $lint failed; workflows are not linted"
fi
