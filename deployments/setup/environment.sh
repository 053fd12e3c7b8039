#!/usr/bin/env bash
# The Python environment .venv, exactly as the lock files say, with this project in it (editable).
#
#   environment.sh                   what Caisson needs to run
#   environment.sh --dev             and what its tests and checks need
#   environment.sh --dependencies    the locked packages alone, without this project: a layer of an image
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

KIND=runtime
COVERED_BY="runtime dev"
LOCK=$ROOT/requirements.lock
STAMP=$VENV/.caisson
PYTHONS=(python3 python3.14 python3.13 python3.12 python3.11)

find_python() {
    local name
    for name in "${PYTHONS[@]}"; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# uv from PATH where one is there: that saves making a pip, only to install uv with it.
uv_on_path() {
    local version
    version=$(uv --version 2>/dev/null | cut -d ' ' -f 2) || return 1
    printf '0.5\n%s\n' "$version" | sort --version-sort --check=quiet && command -v uv
}

create_venv() {
    local python uv
    python=$(find_python) || die "Python 3.11 or newer is needed. Install it: apt-get install python3"
    rm -rf "$VENV"
    if uv=$(uv_on_path); then
        logged "$uv" venv --python "$python" "$VENV"
        return
    fi
    "$python" -c 'import ensurepip' 2>/dev/null || apt_install "for the Python environment" python3-venv
    logged "$python" -m venv "$VENV"
}

install_uv() {
    logged "$VENV/bin/python" -m pip --version || logged "$VENV/bin/python" -m ensurepip
    logged "$VENV/bin/python" -m pip install --require-hashes -r "$SETUP_LOCK"
}

case ${1:-} in
'') ;;
--dev) KIND=dev COVERED_BY=dev ;;
--dependencies) KIND=dependencies COVERED_BY="dependencies runtime dev" ;;
*) die "unknown option '$1': only --dev and --dependencies" ;;
esac

SETUP_LOCK=$ROOT/deployments/setup/setup.lock
# The place belongs to it: an environment doesn't work where it wasn't made.
CONTENT="$(cd "$ROOT" && cat requirements*.lock pyproject.toml "$SETUP_LOCK" | sha256sum | cut -d ' ' -f 1) $ROOT"

is_current() {
    found=$(cat "$STAMP" 2>/dev/null || true)
    [[ -x $VENV/bin/python && " $COVERED_BY " == *" ${found%% *} "* && ${found#* } == "$CONTENT" ]]
}

# Each run imports our modules anew: where Python writes no bytecode by itself, it would compile 150 files at the start of
# each. Without it everything works, only later.
compile_ours() {
    "$VENV/bin/python" -m compileall -q "$ROOT"/{caisson,tasks,flows,deployments} &>/dev/null || true
}

if is_current; then
    compile_ours
    exit 0
fi
begin environment
is_current && exit 0

# Once made for development it stays so, and so does one that somebody made by hand: `make demo` must not take the
# tests' tools away.
if [[ $found == dev* || (-z $found && -x $VENV/bin/python) ]]; then
    KIND=dev
fi
[[ $KIND == dev ]] && LOCK=$ROOT/requirements-dev.lock
say "Making the Python environment in .venv ($KIND)"
[[ -x $VENV/bin/python && (-z $found || $found == *" $ROOT") ]] || create_venv
UV=$(uv_on_path) || UV=$VENV/bin/uv
[[ -x $UV ]] || install_uv
rm -f "$STAMP"
cd "$ROOT"
logged "$UV" pip sync --compile-bytecode --python "$VENV/bin/python" --require-hashes "$SETUP_LOCK" "$LOCK"
[[ $KIND == dependencies ]] ||
    logged "$UV" pip install --python "$VENV/bin/python" --no-deps --no-build-isolation --editable .
compile_ours
printf '%s' "$KIND $CONTENT" >"$STAMP"
