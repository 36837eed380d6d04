# Sourced by the scripts beside it: `prepare_environment [EXTRA]` makes .venv and installs the project into it.
#
# Nothing is downloaded again while pyproject.toml is unchanged, so a second run works without a network.
# Set PYTHON to choose the interpreter of a new environment.

project=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd -P)
venv_python=$project/.venv/bin/python

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$(basename -- "$0"): $*"
    exit 1
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if is_recent "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or newer, and found none. Install it (Debian, Ubuntu: apt install python3 python3-venv;" \
        "Fedora: dnf install python3; macOS: brew install python), or set PYTHON to where it is."
}

make_venv() {
    python=$(find_python) || exit 1
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python lacks the venv module. Install it (Debian, Ubuntu: apt install python3-venv)," \
            "or set PYTHON to another Python."
    say "making .venv with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$project/.venv" || fail "cannot make $project/.venv"
}

# What an environment was made from: a change of any of these installs again.
fingerprint() { printf '%s %s %s\n' "$project" "$1" "$(cksum <"$project/pyproject.toml")"; }

is_installed() {
    [ -f "$project/.venv/installed" ] || return 1
    grep -qxF "$(fingerprint "$1")" "$project/.venv/installed"
}

# Scripts in an environment name their interpreter by its full path, so a checkout that was moved needs a new one.
has_moved() { [ -f "$project/.venv/installed" ] && ! grep -qF "$project " "$project/.venv/installed"; }

prepare_environment() {
    extra=${1:-}
    if ! is_recent "$venv_python" || has_moved; then
        make_venv
    fi
    if is_installed "$extra"; then
        return
    fi
    say "installing osqueue${extra:+[$extra]} into .venv"
    "$venv_python" -m pip install --quiet --disable-pip-version-check --editable "$project${extra:+[$extra]}" ||
        fail "pip could not install the project (its message is above)"
    # A larger installation includes the plain one.
    { fingerprint "$extra"; [ -z "$extra" ] || fingerprint ""; } >"$project/.venv/installed"
}
