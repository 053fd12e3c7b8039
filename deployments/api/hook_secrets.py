"""The values of the secrets that webhooks name: a variable where Caisson was started, or a Prefect Secret block.

A block is read from Prefect once in a while, and what it last said counts while Prefect is away: a delivery can be
judged without it. Whoever sends deliveries can't have Prefect asked more often, for a name comes from the file of
webhooks, and also that there is no such block is remembered for a moment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from caisson.bindings import secret_variable
from caisson.errors import SecretMissing, ServiceUnreachable
from deployments.api.read_cache import ReadCache
from deployments.prefect_pool import PrefectPool

_KNOWN_SECONDS = 30.0
_MISSING_SECONDS = 5.0


class HookSecrets:
    """For any number of threads."""

    def __init__(self, prefect: PrefectPool, environment: Mapping[str, str] = os.environ) -> None:
        self._prefect = prefect
        self._environment = environment
        self._read: ReadCache[str] = ReadCache(lambda value: _KNOWN_SECONDS if value else _MISSING_SECONDS, most=256)
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}

    def value(self, name: str) -> str:
        """The value, that of a block up to a minute old; raises ``SecretMissing`` that says where it is looked for."""
        value = self._environment.get(secret_variable(name), "") or self._read.get(name, lambda: self._block(name))
        if not value:
            variable = secret_variable(name)
            raise SecretMissing(
                f"The secret {name!r} is not known.",
                hint=f"Set {variable} where Caisson is started, or make a Prefect Secret block of that name.",
            )
        return value

    def close(self) -> None:
        self._read.close()

    def _block(self, name: str) -> str:
        path = f"/block_types/slug/secret/block_documents/name/{quote(name, safe='')}?include_secrets=true"
        try:
            with self._prefect.api() as api:
                found = api.get(path)
        except ServiceUnreachable as error:
            if error.details.get("status") != HTTPStatus.NOT_FOUND:
                with self._lock:
                    return self._last.get(name, "")
            found = None
        value = (found or {}).get("data", {}).get("value", "")
        text = value if isinstance(value, str) else ""
        with self._lock:
            self._last[name] = text
        return text
