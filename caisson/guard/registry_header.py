"""``X-Registry-Config``: the registries' passwords that a client sends along with a build. Pure."""

from __future__ import annotations

import base64

from caisson.guard.query import parse_json
from caisson.guard.verdict import Denied

_LONGEST = 4096


def check_registry_config(value: str | None) -> None:
    """Allow none, and one without any registry; raises ``Denied``: credentials never go through a builder."""
    if not value:
        return
    try:
        text = base64.b64decode(value, altchars=b"-_", validate=True).decode() if len(value) <= _LONGEST else ""
    except ValueError:
        text = ""
    if not text or parse_json(text, "X-Registry-Config") not in (None, {}):
        raise Denied("registry-config", "A build here has no credentials for registries; log out in the builder.")
