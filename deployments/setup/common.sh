# shellcheck shell=bash disable=SC2034  # what it sets is used by those that source it
# What the set-up scripts share: where state and logs are, apt, and how an engine is asked. Sourced, never run.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
# Debian keeps dockerd, ip and iptables where a user's PATH doesn't look.
export PATH=$PATH:/usr/sbin:/sbin

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
ENGINE_HOST=${CAISSON_DOCKER_HOST:-unix:///var/run/docker.sock}
BASE_IMAGE=debian:trixie-slim
BUILDER_IMAGE=${CAISSON_BUILDER_IMAGE:-caisson-builder:latest}

say() { printf '%s\n' "$*"; }

# A failure that is understood: one sentence with the way out, without the log.
die() {
    trap - EXIT
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Where state is kept; without the right to write there, in the clone.
state_dir() {
    local wanted=${CAISSON_STATE_DIR:-/var/lib/caisson}
    if (umask 077 && mkdir -p "$wanted/setup") 2>/dev/null && [[ -w $wanted/setup ]]; then
        printf '%s' "$wanted"
    else
        mkdir -p "$ROOT/.state/setup"
        printf '%s' "$ROOT/.state"
    fi
}

# begin NAME: from here on LOG takes the detail, an unexpected end prints its tail, and no other NAME runs meanwhile.
begin() {
    STATE=$(state_dir)
    LOG=$STATE/setup/$1.log
    exec 8>"$STATE/setup/$1.lock"
    if ! flock --nonblock 8; then
        say "Waiting for another ${0##*/} to end"
        flock --timeout 900 8 || die "another one still runs after 15 minutes. End it, then try again."
    fi
    : >"$LOG"
    trap 'ended $?' EXIT
}

ended() {
    (($1 == 0)) && return
    {
        printf '%s: failed. The end of %s:\n' "${0##*/}" "$LOG"
        tail -n 20 "$LOG" | sed 's/^/    /'
    } >&2
}

# logged COMMAND…: its output goes to the log. Services that an installation starts must not inherit the locks.
logged() {
    printf '+ %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null 8>&- 9>&-
}

need_root() {
    ((EUID == 0)) || die "$1 needs root. Run this as root, or do that once by hand."
}

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
    done
}

# apt_install WHY PACKAGE…: installs the missing ones, after saying so. Fresh lists are fetched only when the ones at
# hand don't do, for that takes longer than most installations.
apt_install() {
    local why=$1
    shift
    local missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    need_root "Installing ${missing[*]} ($why)"
    say "Installing with apt ($why): ${missing[*]}"
    local install=(apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}")
    logged "${install[@]}" && return
    # A list that can't be fetched (a third party's repository) is no reason to stop: the installation tells.
    logged apt-get -q -o DPkg::Lock::Timeout=300 update || true
    logged "${install[@]}"
}

# engine_get HOST PATH [SECONDS [KEY…]]: what the engine answers to that GET, or the string found there by its keys.
# Fails when it doesn't answer with 200 in that time. In Python, for a bare Debian has neither curl nor a docker CLI.
engine_get() {
    python3 -I -S - "$1" "$2" "${3:-5}" "${@:4}" <<'PYTHON' 2>/dev/null
import json, socket, sys

host, path, seconds, *keys = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(float(seconds))
    s.connect(host.removeprefix("unix://"))
    # Version 1.0 of HTTP: the answer ends with the connection, and is never chunked.
    s.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
    answer = b"".join(iter(lambda: s.recv(65536), b""))
head, _, body = answer.partition(b"\r\n\r\n")
if head.split()[1] != b"200":
    sys.exit(1)
if keys:
    value = json.loads(body)
    for key in keys:
        value = value[int(key) if isinstance(value, list) else key]
    body = value.encode()
sys.stdout.buffer.write(body)
PYTHON
}

engine_answers() { engine_get "$1" /_ping 2 >/dev/null; }
image_id() { engine_get "$1" "/images/$2/json" 5 Id; }
image_label() { engine_get "$1" "/images/$2/json" 5 Config Labels "$3"; }

# await_engine HOST SECONDS [PID]: until it answers; not longer than its process lives.
await_engine() {
    local until=$((SECONDS + $2))
    until engine_answers "$1"; do
        [[ -z ${3:-} ]] || kill -0 "$3" 2>/dev/null || return 1
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}

# docker_cli HOST: path of a docker CLI that gets on with that engine. One can be too new for an old engine, or there
# for something else; Debian's own is then the second choice.
docker_cli() {
    local cli
    for cli in "$(command -v docker || true)" /usr/bin/docker; do
        if [[ -x $cli ]] && "$cli" --host "$1" version >/dev/null 2>&1; then
            printf '%s' "$cli"
            return
        fi
    done
    return 1
}

docker_on() {
    local cli
    cli=$(docker_cli "$1") || die "No docker CLI here gets on with the engine at $1. Install Debian's docker.io."
    "$cli" --host "$1" "${@:2}"
}

# The base URL of the first repository in this host's own apt sources whose URL matches; empty: none.
apt_repository() {
    # shellcheck disable=SC2016  # apt expands it
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 -E "$1" || true
}

# bootstrap TARGET [PACKAGE…]: a minimal Debian trixie, as a directory or, where the name says so, a tar archive.
# mmdebstrap does what debootstrap does, in 15 s instead of 40, and needs no directory for an archive.
bootstrap() {
    local target=$1 mirror security options=()
    shift
    need_root "Bootstrapping Debian"
    apt_install "to bootstrap Debian" mmdebstrap debian-archive-keyring
    mirror=$(apt_repository '/debian/?$')
    security=$(apt_repository '/debian-security/?$')
    (($#)) && options+=("--include=$(IFS=,; printf '%s' "$*")")
    # As in Debian's official slim image: no documentation, manuals and translations, and no package files kept.
    local path
    for path in doc man info locale groff linda lintian; do
        options+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    options+=("--dpkgopt=path-include=/usr/share/doc/*/copyright"
        '--aptopt=Acquire::Languages "none"')
    # Written at the end, for mmdebstrap itself would stumble over it.
    # shellcheck disable=SC2016  # the hook's own $1: the new root
    options+=('--customize-hook=echo "Binary::apt-get::APT::Keep-Downloaded-Packages \"false\";" \
        >"$1/etc/apt/apt.conf.d/no-archives"')
    logged mmdebstrap --variant=minbase "${options[@]}" trixie "$target" \
        "deb ${mirror:-http://deb.debian.org/debian} trixie main" \
        "deb ${mirror:-http://deb.debian.org/debian} trixie-updates main" \
        "deb ${security:-http://deb.debian.org/debian-security} trixie-security main"
}
