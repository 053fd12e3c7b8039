"""What an engine says of a base image that can't be had, before or in a build. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from caisson.errors import BaseImageUnreachable, BuildFailed, CaissonError

# As with a push: a registry may say nothing for minutes.
PULL_SILENCE_SECONDS = 600.0

# net/http, net and TLS of Go, as the engine repeats them; and what a registry answers when it is out of order.
_NETWORK_FAULT = re.compile(
    r"dial tcp|i/o timeout|TLS handshake timeout|connection re(?:fused|set)|no such host|network is unreachable"
    r"|no route to host|context deadline exceeded|Client\.Timeout|unexpected EOF|: EOF\b|server misbehaving"
    r"|unexpected status(?: code)?.*\b(?:429|5\d\d)\b|temporary failure in name resolution",
    re.IGNORECASE,
)


def base_image_failure(text: str, reason: str, details: Mapping[str, object] | None = None) -> CaissonError:
    """The failure that ``text`` tells of, one of the network, which may pass, or not; ``reason`` is what is shown.

    >>> base_image_failure("dial tcp: lookup example.com: no such host", "no such host").kind
    'base-image-unreachable'
    """
    kind = BaseImageUnreachable if _NETWORK_FAULT.search(text) else BuildFailed
    return kind(
        f"A base image can't be had: {reason}.",
        hint="Check its name, and that the host reaches the registry or has the image.",
        details=dict(details or {}),
    )
