"""Which addresses are this host's own, from the kernel's own files."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from caisson.host_addresses import read_host_addresses

TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 192.0.2.0
        /24 link UNICAST
     |-- 192.0.2.7
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
     |-- 127.0.0.0
        /8 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
"""
INET6 = "20010db8000000000000000000000007 02 40 00 80     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n"


def test_each_address_of_the_host_is_one_and_its_networks_are_none(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(TRIE)
    (tmp_path / "if_inet6").write_text(INET6)
    found = {str(address) for address in read_host_addresses(tmp_path)}
    assert found == {"192.0.2.7", "127.0.0.1", "2001:db8::7", "::1"}


def test_a_kernel_without_a_family_has_none_of_it(tmp_path: Path) -> None:
    assert read_host_addresses(tmp_path) == frozenset()


def test_this_host_is_itself() -> None:
    assert ipaddress.ip_address("127.0.0.1") in read_host_addresses()
