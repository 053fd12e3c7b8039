#!/usr/bin/env bash
# Installs what the tests need beside Python and the engines: git with LFS, servers that they start themselves (sshd,
# a registry, PostgreSQL), a browser, promtool and systemd-analyze, which check files of ours, and tools that look at
# processes and the network. And fetches two of docker's plugins, each one program beside the others that is never
# installed: from Debian sid a newer buildx than the builder image's, which is tried behind the guard too, and Debian
# trixie's compose.
#
#   test-tools.sh            for `make test`
#   test-tools.sh --lint     for `make lint`
#   test-tools.sh --buildx   prints the newer buildx as the tests take it (CAISSON_TEST_BUILDX); nothing where there is none
#   test-tools.sh --compose  prints the compose, likewise (CAISSON_TEST_COMPOSE)
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

TOOLS=${CAISSON_TEST_DIR:-/var/lib/caisson-test}
BUILDX_VERSION=0.29
BUILDX=$TOOLS/docker-buildx-$BUILDX_VERSION
COMPOSE_VERSION=2.26
COMPOSE=$TOOLS/docker-compose-$COMPOSE_VERSION

# fetch_plugin buildx|compose VERSION SUITE: from the mirror that this machine has its own packages from, and with apt's
# check of signatures. Lists and package are in a directory of their own, so that the machine's apt knows nothing of SUITE.
fetch_plugin() {
    local name=docker-$1 version=$2 suite=$3 apt mirror
    [[ ! -x $TOOLS/$name-$version ]] || return 0
    say "Fetching $name $version from Debian $suite, for the tests"
    # shellcheck disable=SC2016  # it is apt that replaces it
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
    apt=$(mktemp -d)
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$TOOLS"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "${mirror:-http://deb.debian.org/debian/}" "$suite" >"$apt/sources.list"
    local options=(-q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    if logged apt-get "${options[@]}" update &&
        (cd "$apt" && logged apt-get "${options[@]}" download "$name=$version.*") &&
        logged dpkg-deb --extract "$apt/$name"_*.deb "$apt/found" &&
        logged "$apt/found/usr/libexec/docker/cli-plugins/$name" version; then
        mv "$apt/found/usr/libexec/docker/cli-plugins/$name" "$TOOLS/$name-$version"
    else
        # What sid has changes, and a derivative of Debian has none.
        say "There is no $name $version from Debian $suite here: see $LOG"
    fi
    rm -rf "$apt"
}

case ${1:-} in
--buildx)
    # Without it, the builder image's alone is tried.
    [[ ! -x $BUILDX ]] || printf '%s\n' "$BUILDX"
    exit
    ;;
--compose)
    [[ ! -x $COMPOSE ]] || printf '%s\n' "$COMPOSE"
    exit
    ;;
esac
begin test-tools
case ${1:-} in
'')
    apt_install "for the tests" git git-lfs openssh-server openssh-client docker-registry apache2-utils chromium \
        procps iproute2 iptables util-linux curl jq postgresql prometheus systemd
    fetch_plugin buildx "$BUILDX_VERSION" sid
    fetch_plugin compose "$COMPOSE_VERSION" trixie
    ;;
--lint) apt_install "for the checks" shellcheck ;;
*) die "unknown option '$1': only --lint, --buildx and --compose" ;;
esac
