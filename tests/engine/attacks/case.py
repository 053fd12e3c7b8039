"""What an attack is: what it sends, by which rule it is denied, and how it shows that it works without the guard.

Requests are templates: ``<fresh>`` is a name of the case, ``<own>`` the own image of the build; ``lab.Case`` knows all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from tests.engine.attacks.lab import Answer, Case

Content = str | bytes | Mapping[str, Any] | Callable[[Case], bytes] | None
Effect = Callable[[Case, Answer], bool]
"""Whether the attack has worked, told from the answer and from what is on the engine now."""


class Sent(Protocol):
    """What goes to the socket; ``read_as`` is the method of the request that the first answer is for."""

    def encode(self, case: Case) -> bytes: ...


@dataclass(frozen=True)
class Http:
    """A well-formed request. A mapping is sent as JSON; ``headers`` replace those that it would have."""

    method: str
    target: str
    content: Content = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, case: Case) -> bytes:
        content, headers = self.content, {"Host": "docker", "Connection": "close"}
        if isinstance(content, Mapping):
            content = json.dumps(content)
            headers["Content-Type"] = "application/json"
        if callable(content):
            body = content(case)
        else:
            body = case.fill(content.encode() if isinstance(content, str) else content or b"")
        if self.content is not None:
            headers["Content-Length"] = str(len(body))
        headers |= self.headers
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return case.fill("\r\n".join(lines).encode("latin-1")) + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Raw:
    """Bytes as they are; only marks are filled in. ``then`` is sent a moment later, where it has to come apart."""

    data: str
    then: str = ""

    def encode(self, case: Case) -> bytes:
        return case.fill(self.data.encode("latin-1"))


@dataclass(frozen=True)
class Refuses:
    """The engine itself refuses it: with an answer that has ``shown`` in it, because of ``why``."""

    shown: str
    why: str


@dataclass(frozen=True)
class Attack:
    """One attack. ``rule`` is the one that denies it, and not another one by accident.

    - ``works``: its effect on the engine's own socket, or why there is none; ``works_on`` says it of one engine, by the
      beginning of its name.
    - ``status`` is the guard's (first) answer; 200 for what it answers without the engine's secrets. ``denies`` where
      the first answer does not tell.
    - ``reaches``: whether a request of the guard's own reaches the engine (a context is denied on the way).
    - ``waits``: seconds after which an answer that has no end is taken for whole.
    """

    name: str
    send: Sent
    rule: str
    works: Effect | Refuses
    works_on: Mapping[str, Effect | Refuses] = field(default_factory=dict)
    status: int = 403
    denies: bool | None = None
    reaches: bool = False
    waits: float = 10.0

    def on(self, engine: str) -> Effect | Refuses:
        """What it does on the engine of that name."""
        return next((works for name, works in self.works_on.items() if engine.startswith(name)), self.works)


def endpoint(
    name: str, method: str, target: str, works: Effect | Refuses, content: Content = None, **more: Any
) -> Attack:
    """An attack by an endpoint that no build needs."""
    headers = more.pop("headers", {})
    return Attack(name, Http(method, target, content, headers), more.pop("rule", "endpoint"), works, **more)


def says(*parts: str, status: int | None = None) -> Effect:
    """The answer holds all of it, and has that status."""

    def effect(case: Case, answer: Answer) -> bool:
        text = answer.data.decode("utf-8", "replace")
        return (status is None or answer.status == status) and all(case.fill_text(part) in text for part in parts)

    return effect


def done(status: int) -> Effect:
    """The engine says that it was done; for what leaves nothing to look at."""
    return lambda case, answer: answer.status == status


def exists(kind: str, name: str = "<fresh>") -> Effect:
    """There is such an object: ``containers``, ``images``, ``volumes``, ``networks``."""
    return lambda case, answer: case.inspect(kind, name) is not None


def gone(kind: str, name: str) -> Effect:
    """There is no such object any more."""
    return lambda case, answer: case.inspect(kind, name) is None


def has(path: str, value: object, kind: str = "containers", name: str = "<fresh>") -> Effect:
    """There is such an object, and what is at that path of its document is or contains ``value``."""

    def effect(case: Case, answer: Answer) -> bool:
        found: Any = case.inspect(kind, name)
        for key in path.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        wanted = json.loads(case.fill_text(json.dumps(value)))
        return bool(found == wanted or (isinstance(found, (list, str, dict)) and wanted in found))

    return effect


def fetched(case: Case, answer: Answer) -> bool:
    """The engine has connected to the server that the attack names."""
    return case.was_fetched()


def query(**values: str) -> str:
    """A query; marks in it stay as they are, and are filled in without being encoded."""
    return "&".join(f"{key}={quote(value, safe='<>:/@.-')}" for key, value in values.items())
