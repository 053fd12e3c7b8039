# shellcheck shell=bash disable=SC2034  # what it sets is used by those that source it
# What the set-up scripts share: where state and logs are, apt, and how an engine is asked. Sourced, never run.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
SETUP=$ROOT/deployments/setup
ENGINE_HOST=${CAISSON_DOCKER_HOST:-unix:///var/run/docker.sock}
BASE_IMAGE=debian:trixie-slim
BUILDER_IMAGE=${CAISSON_BUILDER_IMAGE:-caisson-builder:latest}

say() { printf '%s\n' "$*"; }

# A failure that is understood: one sentence with the way out, no log.
die() {
    trap - EXIT
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Where state is kept; without the right to write there, in the clone.
state_dir() {
    local wanted=${CAISSON_STATE_DIR:-/var/lib/caisson}
    if mkdir -p "$wanted/setup" 2>/dev/null && [[ -w $wanted/setup ]]; then
        printf '%s' "$wanted"
    else
        mkdir -p "$ROOT/.state/setup"
        printf '%s' "$ROOT/.state"
    fi
}

# begin NAME: from here on LOG takes the detail, and an unexpected end prints its tail.
begin() {
    LOG=$(state_dir)/setup/$1.log
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

# logged COMMAND…: its output goes to the log.
logged() {
    printf '+ %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null
}

need_root() {
    ((EUID == 0)) || die "$1 needs root. Run it as root, or do that once by hand."
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

# engine_answers HOST: whether a Docker engine answers there within two seconds.
engine_answers() {
    python3 -I -S - "${1#unix://}" <<'PYTHON' 2>/dev/null
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(2)
    s.connect(sys.argv[1])
    s.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    sys.exit(b" 200 " not in s.recv(64))
PYTHON
}

# await_engine HOST PID SECONDS: until it answers, or its process is gone.
await_engine() {
    local until=$((SECONDS + $3))
    until engine_answers "$1"; do
        kill -0 "$2" 2>/dev/null || return 1
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}

# docker_on HOST ARGUMENT…: the docker CLI that gets on with that engine.
docker_on() {
    local host=$1
    shift
    "$(docker_cli "$host")" --host "$host" "$@"
}

# A CLI can be too new for an old engine; Debian's own is then the second choice.
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

image_id() { docker_on "$1" image inspect --format '{{.Id}}' "$2" 2>/dev/null; }

# copy_image FROM TO IMAGE: the same image on the other engine, if the first has it.
copy_image() {
    local wanted
    wanted=$(image_id "$1" "$3") || return 0
    [[ $(image_id "$2" "$3" || true) == "$wanted" ]] && return
    say "Copying $3 to the engine at $2"
    docker_on "$1" save "$3" | docker_on "$2" load >>"$LOG" 2>&1
}

# The Debian mirror that this host's own apt uses.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016  # apt expands it
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 -E '/debian/?$' || true)
    printf '%s' "${mirror:-http://deb.debian.org/debian}"
}

# bootstrap DIRECTORY [PACKAGE…]: a Debian trixie root, whole or not at all.
bootstrap() {
    local directory=$1
    shift
    need_root "Bootstrapping a Debian root"
    apt_install "to bootstrap Debian" debootstrap debian-archive-keyring
    local include=()
    (($#)) && include=("--include=$(IFS=,; printf '%s' "$*")")
    rm -rf --one-file-system "$directory.part"
    mkdir -p "$directory.part"
    logged debootstrap --variant=minbase "${include[@]}" trixie "$directory.part" "$(debian_mirror)"
    rm -rf "$directory.part"/var/cache/apt/archives/*.deb "$directory.part"/var/cache/apt/*.bin \
        "$directory.part"/var/lib/apt/lists/* "$directory.part"/var/log/*.log
    mv "$directory.part" "$directory"
}
