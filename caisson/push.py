"""What a push says, and what its failures mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from caisson.engine import PushProgress
from caisson.errors import CaissonError, EngineRefused, PushDenied, RegistryUnreachable
from caisson.reference import Digest
from caisson.sizes import format_size

_DENIED = re.compile(
    r"denied|unauthorized|authentication required|no basic auth credentials|forbidden|incorrect username or password"
    r"|\b401\b|\b403\b",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"connection refused|connection reset|no such host|i/o timeout|timed? ?out|deadline exceeded|no route to host"
    r"|network is unreachable|server misbehaving|\bEOF\b|broken pipe|TLS|x509|certificate|server gave HTTP response"
    r"|received unexpected HTTP status: 5\d\d|\b50[0-9]\b|Service Unavailable|Bad Gateway|dial tcp",
    re.IGNORECASE,
)


def classify_push_error(message: str) -> CaissonError:
    """The failure that the engine's sentence stands for."""
    text = message.strip().rstrip(".")[:500]
    if _DENIED.search(text):
        return PushDenied(
            f"The registry denied the push: {text}.",
            hint="Check the credentials for that registry, and that they may push to the repository.",
        )
    if _UNREACHABLE.search(text):
        return RegistryUnreachable(
            f"The registry can't be reached: {text}.", hint="Check its address, and that this host reaches it."
        )
    return EngineRefused(f"The push failed: {text}.")


def should_retry(error: CaissonError) -> bool:
    """Network faults and 5xx may pass; a denial does not, and neither does a certificate."""
    return isinstance(error, RegistryUnreachable) and not re.search(
        r"x509|certificate|server gave HTTP response", error.message, re.IGNORECASE
    )


def retry_delay(attempt: int) -> float:
    """Seconds to wait after the attempt of that number (from 1): 1, 2, 4 …, 30 at most."""
    return float(min(30, 2 ** (attempt - 1)))


def parse_push_line(line: Mapping[str, Any]) -> PushProgress | Digest | CaissonError | None:
    """One object of the engine's stream: progress, the digest recorded by the registry, a failure, or nothing."""
    if "error" in line:
        return classify_push_error(str(line["error"]))
    digest = (line.get("aux") or {}).get("Digest")
    if digest:
        return Digest(str(digest))
    if not line.get("id"):
        return None
    detail = line.get("progressDetail") or {}
    return PushProgress(
        str(line["id"]), str(line.get("status", "")), int(detail.get("current") or 0), int(detail.get("total") or 0)
    )


class PushLog:
    """The sum over all layers, a line a second at most."""

    def __init__(self) -> None:
        self._layers: dict[str, PushProgress] = {}
        self._said = float("-inf")

    def add(self, progress: PushProgress, *, now: float) -> str:
        """A line to log, or nothing; ``now`` in seconds of any steady clock."""
        before = self._layers.get(progress.layer)
        if progress.total or before is None:
            self._layers[progress.layer] = progress
        total = sum(layer.total for layer in self._layers.values())
        if not total or now - self._said < 1:
            return ""
        self._said = now
        current = sum(min(layer.current, layer.total) for layer in self._layers.values())
        return f"pushing {len(self._layers)} layers: {format_size(current)} of {format_size(total)}"
