#!/usr/bin/env bash
# Newer Docker engines beside the host's own, for tests: Debian trixie's, from one root directory, in network and mount
# namespaces of their own, so that no engine sees another's bridge, iptables or storage.
#
#   newer       keeps images as the host's own does (overlay2)
#   containerd  keeps them in the containerd store
#   compose     has no other tests: deployments/compose.yaml is brought up on it
#
#   test-engine.sh start              make them (once, 30 s), start them, copy the first engine's images to them
#   test-engine.sh stop               stop them with their containers; their directories stay
#   test-engine.sh status             prints their addresses, and fails when one doesn't answer
#   test-engine.sh engines            prints the first and the newer as the tests take them:
#                                     NAME=ADDRESS@GATEWAY;NAME=ADDRESS@GATEWAY
#   test-engine.sh containerd-engine  prints the one with the containerd store, likewise
#   test-engine.sh compose-engine     prints the one for compose, likewise
#   test-engine.sh purge              stop them and remove everything of them
#
# Their containers reach the host's servers at 10.231.77.1, .5 and .9, and the outside through the host (NAT).
# CAISSON_TEST_DIR names their directory (default /var/lib/caisson-test).
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

DIR=${CAISSON_TEST_DIR:-/var/lib/caisson-test}
ENGINE_ROOT=$DIR/root
PACKAGES=(docker.io docker-cli docker-buildx iptables ca-certificates)

# choose newer|containerd|compose: the engine that all functions below are about. VIEW has what is its own: /run and its
# data.
# Bridges are not Docker's usual 172.17.0.0/16: a container must never take the first engine's for its own.
choose() {
    ENGINE=$1
    case $ENGINE in
    newer)
        VIEW=$ENGINE_ROOT NETNS=caisson-test LINK=caisson-test0 BRIDGE=10.231.78.1/24
        NETWORK=10.231.77.0/30 HOST_ADDRESS=10.231.77.1 ENGINE_ADDRESS=10.231.77.2
        ;;
    containerd)
        VIEW=$DIR/containerd NETNS=caisson-test-c8d LINK=caisson-test1 BRIDGE=10.231.90.1/24
        NETWORK=10.231.77.4/30 HOST_ADDRESS=10.231.77.5 ENGINE_ADDRESS=10.231.77.6
        ;;
    compose)
        VIEW=$DIR/compose NETNS=caisson-test-compose LINK=caisson-test2 BRIDGE=10.231.91.1/24
        NETWORK=10.231.77.8/30 HOST_ADDRESS=10.231.77.9 ENGINE_ADDRESS=10.231.77.10
        ;;
    esac
    HOST=unix://$VIEW/run/docker.sock
    ENGINE_LOG=$DIR/dockerd-$ENGINE.log
}

in_netns() { nsenter --net="/run/netns/$NETNS" "$@"; }
netns_pids() { ip netns pids "$NETNS" 2>/dev/null || true; }

# ensure_rule TABLE CHAIN RULE…: once, however often this runs. First in its chain, for Docker's own rules drop.
ensure_rule() {
    local table=$1 chain=$2
    shift 2
    iptables -w -t "$table" -C "$chain" "$@" 2>/dev/null || iptables -w -t "$table" -I "$chain" "$@"
}

drop_rule() {
    local table=$1 chain=$2
    shift 2
    while iptables -w -t "$table" -D "$chain" "$@" 2>/dev/null; do :; done
}

# each_rule FUNCTION: to the servers of the tests on this host, out into the world, and back in for answers only.
each_rule() {
    "$1" filter INPUT -i "$LINK" -j ACCEPT
    "$1" nat POSTROUTING -s "$NETWORK" ! -o "$LINK" -j MASQUERADE
    "$1" filter FORWARD -i "$LINK" -j ACCEPT
    "$1" filter FORWARD -o "$LINK" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
}

# The MTU of the way out: a larger one inside would lose packets where ICMP is filtered.
uplink_mtu() {
    local device
    device=$(ip -o route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
    cat "/sys/class/net/${device:-lo}/mtu"
}

network_up() {
    local mtu
    mtu=$(uplink_mtu)
    ((mtu <= 1500)) || mtu=1500
    [[ -e /run/netns/$NETNS ]] || ip netns add "$NETNS"
    if ! ip link show "$LINK" &>/dev/null; then
        ip link add "$LINK" type veth peer name eth0 netns "$NETNS"
        in_netns ip address add "$ENGINE_ADDRESS/30" dev eth0
        ip address add "$HOST_ADDRESS/30" dev "$LINK"
    fi
    ip link set "$LINK" mtu "$mtu" up
    in_netns ip link set lo up
    in_netns ip link set eth0 mtu "$mtu" up
    in_netns ip route replace default via "$HOST_ADDRESS"
    echo 1 >/proc/sys/net/ipv4/ip_forward
    each_rule ensure_rule
}

network_down() {
    each_rule drop_rule
    ip link delete "$LINK" 2>/dev/null || true
    ip netns delete "$NETNS" 2>/dev/null || true
}

# The host's name servers, without those that only the host itself can reach.
write_resolv_conf() {
    local file
    for file in /etc/resolv.conf /run/systemd/resolve/resolv.conf; do
        if [[ -e $file ]] && grep -Eq '^nameserver +[^ ]' <(grep -Ev '^nameserver +(127\.|::1)' "$file"); then
            rm -f "$ENGINE_ROOT/etc/resolv.conf"
            grep -Ev '^nameserver +(127\.|::1)' "$file" >"$ENGINE_ROOT/etc/resolv.conf"
            return
        fi
    done
    say "No name server in /etc/resolv.conf that containers can reach: builds on this engine won't resolve names."
}

# copy_image IMAGE: the first engine's image, if it has it and this one hasn't the same.
copy_image() {
    local wanted previous copied record=$DIR/copied-$ENGINE-${1//[\/:]/_}
    wanted=$(image_id "$ENGINE_HOST" "$1") || return 0
    previous=$(image_id "$HOST" "$1" || true)
    # The containerd store has IDs of its own, so what was copied is remembered.
    [[ $previous != "$wanted" && $(cat "$record" 2>/dev/null || true) != "$wanted $previous" ]] || return 0
    say "Copying $1 to the $ENGINE test engine"
    docker_on "$ENGINE_HOST" save "$1" | docker_on "$HOST" load >>"$LOG" 2>&1
    copied=$(image_id "$HOST" "$1")
    # In use by a container it stays, without a name.
    [[ -z $previous || $previous == "$copied" ]] || logged docker_on "$HOST" rmi "$previous" || true
    printf '%s %s' "$wanted" "$copied" >"$record"
}

# `ip netns exec` would remount /sys and hide the cgroups, and a chroot would break `docker exec`: hence this way in.
# shellcheck disable=SC2016  # $1 and the others are the inner shell's own
launch() {
    local config='{}'
    [[ $ENGINE != containerd ]] || config='{"features": {"containerd-snapshotter": true}}'
    mkdir -p "$VIEW/run" "$VIEW/var/lib/docker"
    printf '%s\n' "$config" >"$VIEW/run/caisson-daemon.json"
    setsid nsenter --net="/run/netns/$NETNS" unshare --mount --propagation private bash -ec '
        mount --bind "$1" "$1"
        cd "$1"
        if [[ $2 != "$1" ]]; then
            mount --bind "$2/run" run
            mount --bind "$2/var/lib/docker" var/lib/docker
        fi
        mount -t proc proc proc
        mount --rbind /sys sys
        mount --rbind /dev dev
        mkdir -p .outside
        pivot_root . .outside
        cd /
        umount -l /.outside
        exec dockerd --config-file /run/caisson-daemon.json --host unix:///run/docker.sock --bip "$3" --mtu "$4"
    ' caisson-test-engine "$ENGINE_ROOT" "$VIEW" "$BRIDGE" "$(uplink_mtu)" </dev/null >>"$ENGINE_LOG" 2>&1 8>&- 9>&- &
    ENGINE_PID=$!
}

make_root() {
    apt_install "for the test engines" iproute2 iptables util-linux mount
    [[ ! -d $ENGINE_ROOT ]] || return 0
    say "Bootstrapping a newer Docker engine for tests (Debian trixie's, in $ENGINE_ROOT)"
    rm -rf --one-file-system "$ENGINE_ROOT.part"
    bootstrap "$ENGINE_ROOT.part" "${PACKAGES[@]}"
    mv "$ENGINE_ROOT.part" "$ENGINE_ROOT"
}

start() {
    network_up
    write_resolv_conf
    engine_answers "$HOST" && return
    say "Starting the $ENGINE test engine"
    # What a crash or a reboot left would be taken for a running engine.
    [[ -n $(netns_pids) ]] || rm -rf --one-file-system "${VIEW:?}"/run/docker* "${VIEW:?}"/run/containerd
    rm -f "$VIEW/run/docker.pid"
    : >"$ENGINE_LOG"
    launch
    if ! await_engine "$HOST" 60 "$ENGINE_PID"; then
        cat "$ENGINE_LOG" >>"$LOG"
        return 1
    fi
}

stop() {
    local pids pid until=$((SECONDS + 30))
    pid=$(cat "$VIEW/run/docker.pid" 2>/dev/null || true)
    # dockerd stops its containers itself when it is asked to end.
    [[ -n $pid && " $(netns_pids | tr '\n' ' ')" == *" $pid "* ]] && kill -TERM "$pid"
    while pids=$(netns_pids) && [[ -n $pids ]]; do
        if ((SECONDS >= until)); then
            say "The $ENGINE test engine doesn't end by itself: killing it"
            # shellcheck disable=SC2086  # one argument for each process
            kill -KILL $pids 2>/dev/null || true
        fi
        sleep 0.1
    done
    network_down
}

stop_all() {
    local engine
    for engine in compose containerd newer; do
        choose "$engine"
        stop
    done
}

# major_minor HOST: such as 20.10; a question mark for an engine that doesn't answer.
major_minor() {
    local version
    version=$(engine_get "$1" /version 5 Version || true)
    [[ $version =~ ^[0-9]+\.[0-9]+ ]] && printf '%s' "${BASH_REMATCH[0]}" || printf '?'
}

# Both, whether they answer or not: a test of an engine that doesn't is to fail, not to be left out.
engines() {
    local first second gateway
    choose newer
    first=$(major_minor "$ENGINE_HOST")
    second=$(major_minor "$HOST")
    [[ $second != "$first" ]] || second+=-second
    gateway=$(engine_get "$ENGINE_HOST" /networks/bridge 5 IPAM Config 0 Gateway || true)
    say "$first=$ENGINE_HOST@${gateway:-172.17.0.1};$second=$HOST@$HOST_ADDRESS"
}

command=${1:-start}
case $command in
start | stop | purge)
    need_root "The test engines"
    mkdir -p "$DIR"
    begin "test-engine"
    exec 9>"$DIR/lock"
    flock 9
    ;;
esac
case $command in
start)
    make_root
    for engine in newer containerd compose; do
        choose "$engine"
        start
        copy_image "$BASE_IMAGE"
        copy_image "$BUILDER_IMAGE"
    done
    ;;
stop) stop_all ;;
status)
    for engine in newer containerd compose; do
        choose "$engine"
        engine_answers "$HOST" ||
            die "The $engine test engine doesn't run. Start it with deployments/setup/test-engine.sh start"
        say "$HOST"
    done
    ;;
engines) engines ;;
containerd-engine)
    choose containerd
    say "$(major_minor "$HOST")-containerd=$HOST@$HOST_ADDRESS"
    ;;
compose-engine)
    choose compose
    say "$(major_minor "$HOST")-compose=$HOST@$HOST_ADDRESS"
    ;;
purge)
    stop_all
    rm -rf --one-file-system "$DIR"
    ;;
*) die "unknown command '$command': start, stop, status, engines, containerd-engine, compose-engine or purge" ;;
esac
