#!/usr/bin/env bash
# Installs what the tests need beside Python and the engines: git with LFS, servers that they start themselves (sshd,
# a registry, PostgreSQL), a browser, promtool and systemd-analyze, which check files of ours, and tools that look at
# processes and the network.
#
#   test-tools.sh           for `make test`
#   test-tools.sh --lint    for `make lint`
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

begin test-tools
case ${1:-} in
'') apt_install "for the tests" git git-lfs openssh-server openssh-client docker-registry apache2-utils chromium \
    procps iproute2 iptables util-linux curl jq postgresql prometheus systemd ;;
--lint) apt_install "for the checks" shellcheck ;;
*) die "unknown option '$1': only --lint" ;;
esac
