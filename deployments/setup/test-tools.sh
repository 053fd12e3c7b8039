#!/usr/bin/env bash
# Installs what the tests need beside Python and the engines: git with LFS, servers that they start themselves (sshd,
# a registry, PostgreSQL), a browser, promtool and systemd-analyze, which check files of ours, and tools that look at
# processes and the network. And fetches a newer docker buildx than the builder image's, from Debian sid, which is
# tried behind the guard too; it is one program beside the others, and never installed.
#
#   test-tools.sh           for `make test`
#   test-tools.sh --lint    for `make lint`
#   test-tools.sh --buildx  prints the newer buildx as the tests take it (CAISSON_TEST_BUILDX); nothing where there is none
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

BUILDX_VERSION=0.29
BUILDX=${CAISSON_TEST_DIR:-/var/lib/caisson-test}/docker-buildx-$BUILDX_VERSION

# From the mirror that this machine has its own packages from, and with apt's check of signatures. Lists and package are
# in a directory of their own, so that the machine's apt knows nothing of sid.
fetch_buildx() {
    local apt mirror
    [[ ! -x $BUILDX ]] || return 0
    say "Fetching docker buildx $BUILDX_VERSION from Debian sid, for the tests"
    # shellcheck disable=SC2016  # it is apt that replaces it
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
    apt=$(mktemp -d)
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "${BUILDX%/*}"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s sid main\n' \
        "${mirror:-http://deb.debian.org/debian/}" >"$apt/sources.list"
    local options=(-q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    if logged apt-get "${options[@]}" update &&
        (cd "$apt" && logged apt-get "${options[@]}" download "docker-buildx=$BUILDX_VERSION.*") &&
        logged dpkg-deb --extract "$apt"/docker-buildx_*.deb "$apt/found" &&
        logged "$apt/found/usr/libexec/docker/cli-plugins/docker-buildx" version; then
        mv "$apt/found/usr/libexec/docker/cli-plugins/docker-buildx" "$BUILDX"
    else
        # What sid has changes, and a derivative of Debian has none.
        say "There is no docker buildx $BUILDX_VERSION from Debian sid here ($LOG): the builder image's alone is tried"
    fi
    rm -rf "$apt"
}

case ${1:-} in
--buildx)
    [[ ! -x $BUILDX ]] || printf '%s\n' "$BUILDX"
    exit
    ;;
esac
begin test-tools
case ${1:-} in
'')
    apt_install "for the tests" git git-lfs openssh-server openssh-client docker-registry apache2-utils chromium \
        procps iproute2 iptables util-linux curl jq postgresql prometheus systemd
    fetch_buildx
    ;;
--lint) apt_install "for the checks" shellcheck ;;
*) die "unknown option '$1': only --lint and --buildx" ;;
esac
