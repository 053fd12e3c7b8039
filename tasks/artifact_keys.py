"""Keys of a host's pages in Prefect."""

from __future__ import annotations

import re


def host_key(what: str, host: str) -> str:
    """The key of one of a host's pages; Prefect takes small letters, digits and dashes only.

    >>> host_key("disk", "build_1.Example")
    'disk-build-1-example'
    """
    return f"{what}-{re.sub('[^a-z0-9]+', '-', host.lower()).strip('-')}"
