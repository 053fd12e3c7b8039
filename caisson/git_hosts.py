"""Hosts that no repository is on: a cloud's metadata service, link-local addresses, addresses in disguise. Pure.

It judges the host as the request spells it, and asks no name server: a name that leads to such an address, a redirect
and a submodule are not seen here. What keeps a builder from those for certain is the network that it is on.
"""

from __future__ import annotations

import ipaddress

from caisson.addresses import METADATA_NETWORKS, NUMBER, Address, ipv4_within

_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)


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
        if NUMBER.fullmatch(name.rpartition(".")[2]):
            return f"has the host {shown}, an address in disguise; write it as four decimal numbers, such as 192.0.2.1"
        return ""
    problems = (_address_problem(each, shown, allow_loopback) for each in (*ipv4_within(address), address))
    return next(filter(None, problems), "")


def _address_problem(address: Address, shown: str, allow_loopback: bool) -> str:
    if address.is_loopback:
        return _loopback(shown, allow_loopback)
    if address.is_link_local or any(address in network for network in METADATA_NETWORKS):
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


def _address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
