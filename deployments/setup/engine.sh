#!/usr/bin/env bash
# Makes sure that a Docker engine answers at CAISSON_DOCKER_HOST (default unix:///var/run/docker.sock), and that a
# docker CLI is here: uses what is there, else installs and starts Debian's.
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

under_systemd() { [[ -d /run/systemd/system ]]; }

# An engine that boots, or that apt has just started, isn't one to start again.
is_starting() {
    local pid
    pid=$(cat /var/run/docker.pid 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]]
}

start_engine() {
    if is_starting && await_engine "$ENGINE_HOST" 15; then
        return
    fi
    say "Starting the Docker engine"
    if under_systemd; then
        logged systemctl start docker
        await_engine "$ENGINE_HOST" 30
        return
    fi
    setsid dockerd </dev/null >>"$STATE/dockerd.log" 2>&1 8>&- &
    local pid=$!
    if ! await_engine "$ENGINE_HOST" 60 "$pid"; then
        cat "$STATE/dockerd.log" >>"$LOG"
        return 1
    fi
}

begin engine
[[ $ENGINE_HOST == unix:///* ]] || die "CAISSON_DOCKER_HOST=$ENGINE_HOST is no unix socket. Set it to unix:///PATH."
if ! engine_answers "$ENGINE_HOST"; then
    case $ENGINE_HOST in
    unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
    *) die "No engine answers at CAISSON_DOCKER_HOST=$ENGINE_HOST. Start it, or unset the variable to use Debian's." ;;
    esac
    [[ $EUID == 0 || ! -S ${ENGINE_HOST#unix://} ]] ||
        die "The engine's socket ${ENGINE_HOST#unix://} doesn't answer this user. Run this as root or join its group."
    need_root "Starting a Docker engine"
    packages=(iptables ca-certificates)
    command -v dockerd >/dev/null || packages+=(docker.io)
    # Where the kernel enforces AppArmor, older engines start no container without its parser.
    [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]] && packages+=(apparmor)
    apt_install "no Docker engine answers at $ENGINE_HOST" "${packages[@]}"
    start_engine
fi
if ! docker_cli "$ENGINE_HOST" >/dev/null; then
    # In Debian 12 the CLI comes with the engine, later it has a package of its own.
    apt_install "the docker CLI" docker.io
    [[ -x /usr/bin/docker ]] || apt_install "the docker CLI" docker-cli
    docker_cli "$ENGINE_HOST" >/dev/null || die "No docker CLI here gets on with the engine at $ENGINE_HOST."
fi
