#!/bin/sh
# Written by pytheas: starts @APP@ in an environment made of the wheels beside this script.
# PYTHEAS_PYTHON names the device's Python @PYTHON@ when it is not on PATH.
set -u

self=$0
case $self in */*) ;; *) self=$(command -v -- "$0") ;; esac
while [ -h "$self" ]; do
    link=$(readlink -- "$self")
    case $link in /*) self=$link ;; *) self=${self%/*}/$link ;; esac
done
case $self in */*) ;; *) self=./$self ;; esac
root=$(CDPATH= cd -- "${self%/*}/.." && pwd -P) || exit 127

if [ -n "${PYTHEAS_DATA_DIR:-}" ]; then
    base=$PYTHEAS_DATA_DIR/.pytheas
elif [ -n "${XDG_CACHE_HOME:-}" ]; then
    base=$XDG_CACHE_HOME/pytheas/venvs
elif [ -n "${HOME:-}" ]; then
    base=$HOME/.cache/pytheas/venvs
else
    echo "pytheas: no place for the environment of @APP@" >&2
    echo "  help: set PYTHEAS_DATA_DIR to a folder that can be written" >&2
    exit 127
fi
venv=$base/@APP@-@KEY@

if [ ! -f "$venv/complete" ] || [ ! -x "$venv/bin/python" ]; then
    python=
    for candidate in "${PYTHEAS_PYTHON:-}" python@PYTHON@ python3 python; do
        [ -n "$candidate" ] || continue
        found=$(command -v -- "$candidate" 2>/dev/null) || continue
        if "$found" -I -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "@PYTHON@")' 2>/dev/null; then
            python=$found
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "pytheas: @APP@ needs Python @PYTHON@, which is not on this device" >&2
        echo "  help: install it, or name it with PYTHEAS_PYTHON; a bundle brings its own" >&2
        exit 127
    fi
    "$python" -I "$root/install.py" "$root" "$venv" || exit 127
fi

unset PYTHONHOME PYTHONPATH
export PYTHONNOUSERSITE=1 PYTHEAS_ROOT="$root"
exec "$venv/bin/python" -E -s @START@ "$@"
