"""Hosts that no repository is on: a cloud's metadata service, link-local addresses, addresses in disguise. Pure.

It judges the host as the request spells it, and asks no name server: a name that leads to such an address, a redirect
and a submodule are not seen here. What keeps a builder from those for certain is the network that it is on.
"""

from __future__ import annotations

import ipaddress
import re

# AWS, Google, Alibaba, Azure and Oracle: what is there hands out the machine's own credentials to whoever asks.
_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
_METADATA_NETWORKS = tuple(
    ipaddress.ip_network(text) for text in ("fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32")
)
# RFC 6052: an IPv4 address in the last 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# inet_aton(3), which resolvers use: a number in decimal, octal or hexadecimal, of one to four parts.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def host_problem(host: str, *, allow_loopback: bool = False) -> str:
    """Why no repository may be on that host, as it stands in a URL; empty: it may.

    >>> host_problem("git.example.com"), host_problem("10.1.2.3")
    ('', '')
    >>> host_problem("2130706433")
    "has the host '2130706433', an address in disguise; write it as four decimal numbers, such as 192.0.2.1"
    """
    name = host.lower().removesuffix(".")
    shown = repr(host[:80])
    if name in _METADATA_NAMES:
        return f"has the host {shown}, a cloud's metadata service; no repository is there"
    if name == "localhost" or name.endswith(".localhost"):
        return _loopback(shown, allow_loopback)
    address = _address(name)
    if address is None:
        # A last part that is a number makes all of it an address (URL standard, "ends in a number").
        if _NUMBER.fullmatch(name.rpartition(".")[2]):
            return f"has the host {shown}, an address in disguise; write it as four decimal numbers, such as 192.0.2.1"
        return ""
    if address.is_loopback:
        return _loopback(shown, allow_loopback)
    if address.is_link_local or any(address in network for network in _METADATA_NETWORKS):
        return f"has the host {shown}, a link-local or metadata address; no repository is there"
    if address.is_unspecified or address.is_multicast or address in ipaddress.ip_network("0.0.0.0/8"):
        return f"has the host {shown}, which is no address of a server"
    return ""


def _loopback(shown: str, allowed: bool) -> str:
    if allowed:
        return ""
    return (
        f"has the host {shown}, the builder's own loopback; give an address that containers reach, "
        "or set CAISSON_ALLOW_LOOPBACK=true on the host"
    )


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, whichever IPv6 form an IPv4 address hides in; None for a name."""
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
