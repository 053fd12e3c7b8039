"""Hosts that no repository is on, by every spelling that a resolver takes for the same."""

from __future__ import annotations

import pytest

from caisson.git_hosts import host_problem


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.0.1",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "metadata",
        "[fd00:ec2::254]",
        "[FD00:EC2:0::254]",
        "[fe80::1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[::a9fe:a9fe]",
        "100.100.100.200",
        "168.63.129.16",
    ],
)
def test_metadata_services_and_link_local_addresses_are_refused_whatever_is_set(host: str) -> None:
    assert "metadata" in host_problem(host, allow_loopback=True)


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "127.1",
        "0x7f.1",
        "0",
        "1.2.3.04",
        "1.2.3.4.5",
        "127.1.",
        "a.0x1",
    ],
)
def test_addresses_in_disguise_are_refused(host: str) -> None:
    assert "address in disguise" in host_problem(host, allow_loopback=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "0.1.2.3", "[::]", "224.0.0.1", "[ff02::1]"])
def test_what_is_no_address_of_a_server_is_refused(host: str) -> None:
    assert "no address of a server" in host_problem(host, allow_loopback=True)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:7f00:1]"]
)
def test_loopback_is_refused_unless_it_is_allowed(host: str) -> None:
    assert "CAISSON_ALLOW_LOOPBACK=true" in host_problem(host)
    assert host_problem(host, allow_loopback=True) == ""


@pytest.mark.parametrize(
    "host",
    [
        "github.com",
        "10.0.0.1",
        "172.17.0.1",
        "192.168.1.1",
        "[2001:db8::1]",
        "git",
        "1a",
        "3com.com",
        "git.0x.org",
        "169.254.example.com",
    ],
)
def test_other_hosts_pass(host: str) -> None:
    assert host_problem(host) == ""
