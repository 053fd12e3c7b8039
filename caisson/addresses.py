"""What hosts that are addresses mean, in whichever form they are written. Pure; the one place that knows the forms."""

from __future__ import annotations

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
"""A name whose last label is such, in small letters, is taken for an address by some resolvers: inet_aton(3) knows one
to four parts, each decimal, octal or hexadecimal (URL standard: "ends in a number")."""

METADATA_NETWORKS = tuple(
    ipaddress.ip_network(text) for text in ("fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32")
)
"""Clouds' metadata services and agents outside of the link-local networks: AWS, Alibaba, Azure, Oracle. What is there
hands out the machine's own credentials to whoever asks."""

# RFC 4291 (IPv4-compatible), 6052 and 8215 (NAT64): an IPv4 address in the last 32 bits.
_ENDS_IN_IPV4 = tuple(ipaddress.IPv6Network(text) for text in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48"))
# Loopback and unspecified are IPv6's own.
_NOT_COMPATIBLE = (0, 1)


def ipv4_within(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that hide in an IPv6 one: mapped, compatible, 6to4, Teredo (server and client), NAT64.

    >>> [str(ipv4_within(ipaddress.ip_address(text))[0]) for text in ("::ffff:10.0.0.1", "2002:a9fe:a9fe::")]
    ['10.0.0.1', '169.254.169.254']
    """
    if isinstance(address, ipaddress.IPv4Address) or int(address) in _NOT_COMPATIBLE:
        return ()
    known = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    known += [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) for network in _ENDS_IN_IPV4 if address in network]
    return tuple(inner for inner in known if inner is not None)
