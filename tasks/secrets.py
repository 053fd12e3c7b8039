"""Secrets by name: a variable of this host, or a Prefect Secret block. Never a parameter, never logged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from prefect.blocks.system import Secret
from prefect.settings import get_current_settings

from caisson.bindings import secret_variable
from caisson.errors import SecretMissing


def load_secrets(names: Iterable[str]) -> dict[str, str]:
    """The value of each name; raises ``SecretMissing`` that names the first one that is nowhere."""
    return {name: _load(name) for name in dict.fromkeys(names)}


def _load(name: str) -> str:
    value = os.environ.get(secret_variable(name))
    if value is None:
        value = _load_block(name)
    if not value:
        raise SecretMissing(
            f"The secret {name!r} is not known on this host.",
            hint=f"Make a Prefect Secret block of that name, or set {secret_variable(name)}.",
        )
    return value


def _load_block(name: str) -> str | None:
    if not get_current_settings().api.url:
        # Without an API to ask, Prefect would start a server of its own for it.
        return None
    try:
        block: Any = Secret.load(name, _sync=True)  # type: ignore[call-arg]
    except Exception:
        # Not there, no API, or not readable: for a build it is all the same, and none of it may be shown.
        return None
    value = block.get()
    return value if isinstance(value, str) else str(value)
