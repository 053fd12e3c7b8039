"""What hosts tell each other: one Prefect variable for each host, small and seldom written, and Prefect's heartbeats.

Everything goes through Prefect, so a host needs no way to another, and the UI shows the same. A variable holds 5,000
characters, which is why repositories are told as short marks and only the latest of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from caisson.placing import Candidate
from deployments.queued import one_spelling

_PREFIX = "caisson-host-"
RECORDS = {"variables": {"name": {"like_": _PREFIX}}, "limit": 200}
"""What ``POST /variables/filter`` is asked for what all hosts have told; ``parse_records`` reads the answer."""
TAG = "caisson:host"
MOST_REPOSITORIES = 300
_MARK_DIGITS = 10


@dataclass(frozen=True)
class HostRecord:
    """One host as it last told of itself; ``level`` is its disk's, ``free_bytes`` are those of Docker's disk.

    ``prune_seconds`` is how often it is pruned by its schedule; 0: on none, or it is of a version that did not tell.
    """

    host: str
    version: str = ""
    slots: int = 0
    running: int = 0
    level: str = "normal"
    free_bytes: int = 0
    engine_answers: bool = True
    stopped: bool = False
    prune_seconds: int = 0
    repositories: frozenset[str] = frozenset()

    @property
    def value(self) -> dict[str, Any]:
        """As it is written into the variable."""
        return asdict(self) | {"repositories": " ".join(sorted(self.repositories))}

    @classmethod
    def parse(cls, value: object) -> HostRecord | None:
        """What ``value`` wrote; None for anything else: people can edit variables, and versions differ."""
        if not isinstance(value, Mapping):
            return None
        try:
            return cls(
                host=str(value["host"]),
                version=str(value.get("version", "")),
                slots=int(value.get("slots", 0)),
                running=int(value.get("running", 0)),
                level=str(value.get("level", "normal")),
                free_bytes=int(value.get("free_bytes", 0)),
                engine_answers=bool(value.get("engine_answers", True)),
                stopped=bool(value.get("stopped", False)),
                prune_seconds=int(value.get("prune_seconds", 0)),
                repositories=frozenset(str(value.get("repositories", "")).split()),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def candidate(self, *, online: bool, drains: bool) -> Candidate:
        """The host as a place for builds."""
        return Candidate(
            self.host,
            is_live=online and not self.stopped,
            drains=drains,
            is_critical=self.level == "critical",
            engine_answers=self.engine_answers,
            free_slots=max(self.slots - self.running, 0),
            repositories=self.repositories,
        )


def parse_records(variables: Iterable[Mapping[str, Any]]) -> list[HostRecord]:
    """What the hosts have told, of Prefect's answer to ``RECORDS``."""
    records = (HostRecord.parse(variable.get("value")) for variable in variables)
    return [record for record in records if record is not None]


def variable_name(host: str) -> str:
    """The name of a host's variable: Prefect takes small letters, digits, dashes and underscores.

    >>> variable_name("Build-1.example.com")
    'caisson-host-build-1-example-com-d4cdbe'
    """
    digest = hashlib.sha256(host.encode()).hexdigest()[:6]
    return f"{_PREFIX}{re.sub('[^a-z0-9]+', '-', host.lower())}-{digest}"


def repository_mark(url: str) -> str:
    """A short mark of a repository, the same for the usual spellings of its URL.

    >>> repository_mark("https://Git/a.git") == repository_mark("https://git/a/") != repository_mark("https://git/b")
    True
    """
    return hashlib.sha256(one_spelling(url).encode()).hexdigest()[:_MARK_DIGITS]


def repository_marks(urls: Iterable[str]) -> frozenset[str]:
    """The marks of the first of these, as many as a variable can hold."""
    return frozenset(repository_mark(url) for url, _ in zip(urls, range(MOST_REPOSITORIES), strict=False))
