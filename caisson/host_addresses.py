"""The addresses that this host has, as the kernel tells: whoever asks them asks the host, public or not.

``/proc/net/fib_trie`` has an entry of type LOCAL for each of IPv4 (``net/ipv4/fib_trie.c``), ``/proc/net/if_inet6`` a
line for each of IPv6 (proc(5)). Where Caisson has a network namespace of its own, they are that one's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from pathlib import Path

from caisson.addresses import Address

_LOCAL = re.compile(r"\|-- (?P<address>[0-9.]+)\n\s*/32 host LOCAL")


def read_host_addresses(net: Path = Path("/proc/net")) -> frozenset[Address]:
    """All of them; those of a family that the kernel has not are none."""
    found: set[Address] = set()
    with contextlib.suppress(OSError):
        found |= {ipaddress.IPv4Address(match["address"]) for match in _LOCAL.finditer((net / "fib_trie").read_text())}
    with contextlib.suppress(OSError):
        lines = (net / "if_inet6").read_text().splitlines()
        found |= {ipaddress.IPv6Address(bytes.fromhex(line.split()[0])) for line in lines if line.strip()}
    return frozenset(found)
