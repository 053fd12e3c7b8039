"""What an engine says during a push, what its failures mean, and when to try again. Pure.

Sentences are as engines 20.10 and 26.1 gave them when they pushed to a registry that failed in each of these ways;
those of the containerd store are from its source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caisson.engine import PushProgress
from caisson.errors import CaissonError, EngineRefused, PushDenied, RegistryUnreachable
from caisson.reference import Digest
from caisson.sizes import format_size
from caisson.untrusted import clean, shorten

_MAX_READ = 8_192
_MAX_SHOWN = 400
_LONGEST_DELAY_SECONDS = 30.0
_LINE_SECONDS = 1.0
# Over all tags of a build together: a registry that restarts is back within a minute, and one that fails for longer
# would hold the build's place on this host for tags times attempts times half a minute.
RETRY_SECONDS = 60.0
# A registry may say nothing for minutes while it takes in a large layer.
PUSH_SILENCE_SECONDS = 600.0
_FAULT = "fault"
_TRUST = "trust"
_DIGEST_SAID = re.compile(r"\S+: digest: (sha256:[0-9a-f]{64}) size: [0-9]+")

# What a registry or its address can put into a sentence must not decide its meaning.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
_URL = re.compile(r"https?://[^\s\"]+[^\s\":,.]")
_HOST = re.compile(r"(?<=lookup )\S+|(?<=dial tcp )\S+(?=:)")
# Signed URLs and token requests carry their secret in the query; a proxy's URL carries it before the host.
_QUERY = re.compile(r"(https?://[^\s\"?]*\?)[^\s\"]*")
_USER = re.compile(r"(https?://)[^\s\"/@]*@")


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    kind: type[CaissonError]
    sentence: str
    hint: str = ""
    fault: str = ""


def _rule(kind: type[CaissonError], sentence: str, hint: str, *patterns: str, fault: str = "") -> _Rule:
    return _Rule(re.compile("|".join(patterns), re.IGNORECASE | re.MULTILINE), kind, sentence, hint, fault)


# The first that matches decides.
_RULES = (
    # Neither a certificate nor a registry without TLS gets better by trying again.
    _rule(
        RegistryUnreachable,
        "The engine does not trust the registry",
        "Put its CA's certificate into /etc/docker/certs.d/REGISTRY/ca.crt on the engine's host, "
        "or list the registry under insecure-registries in /etc/docker/daemon.json.",
        r"\bx509: ",
        r"server gave HTTP response to HTTPS client",
        fault=_TRUST,
    ),
    # An error code of the distribution spec stands at the beginning of a line; bodies that are no JSON show the status.
    _rule(
        PushDenied,
        "The registry denied the push",
        "Check the credentials for that registry, and that they may push to the repository.",
        r"^(?:unauthorized|denied)(?::|\s*$)",
        r"^no basic auth credentials",
        r"^error parsing HTTP 40[13] response body",
        r"unexpected (?:HTTP )?status\b.*: 40[13]\b",
        r"requested access to the resource is denied",
        r"push access denied",
        r"authorization failed|insufficient_scope",
        r"no basic auth credentials\s*$",
    ),
    _rule(
        RegistryUnreachable,
        "The registry takes no more requests for now",
        "Wait, or push with an account of a higher limit.",
        r"^toomanyrequests\b",
        r"^error parsing HTTP 429 response body",
        r"unexpected (?:HTTP )?status\b.*: 429\b",
        fault="rate limit",
    ),
    _rule(
        RegistryUnreachable,
        "The registry failed",
        "See its own log, or try again later.",
        r"unexpected (?:HTTP )?status\b.*: 5\d\d\b",
        r"^error parsing HTTP 5\d\d response body",
        r"^unavailable\b",
        fault="server",
    ),
    _rule(
        RegistryUnreachable,
        "The registry can't be reached",
        "Check its address and port, and that the engine's host reaches it.",
        r"\bdial (?:tcp|udp)\b",
        r"proxyconnect",
        r"connection (?:refused|reset|timed out)",
        r"no such host|server misbehaving|failure in name resolution",
        r"no route to host|network is (?:unreachable|down)|host is down",
        r"i/o timeout|deadline exceeded|Client\.Timeout|handshake timeout|timeout awaiting",
        r"\bEOF\b|broken pipe|closed network connection|connection broken|malformed HTTP",
        r"\b(?:remote error: )?tls: |http2: ",
        fault="network",
    ),
    _rule(
        EngineRefused,
        "The registry does not take this repository",
        "Create it there first where the registry wants that, or correct the image's name.",
        r"^(?:name unknown|name invalid|repository name)\b",
        r"^error parsing HTTP 404 response body",
    ),
    _rule(
        EngineRefused,
        "The tag is not on the engine any more",
        "Something removed it during the build; build again.",
        r"does not exist locally|^tag does not exist",
    ),
    _rule(
        EngineRefused,
        "The registry does not take an image of this size",
        "Raise the limit of the registry or of the proxy before it, or make the layers smaller.",
        r"^error parsing HTTP 413 response body",
    ),
)


def classify_push_error(message: str) -> CaissonError:
    """The failure that an engine's sentence stands for; shown without what may be secret in it.

    >>> classify_push_error("unauthorized: authentication required").kind
    'push-denied'
    >>> classify_push_error("received unexpected HTTP status: 503 Service Unavailable").kind
    'registry-unreachable'
    """
    message = message[:_MAX_READ]
    skeleton = _HOST.sub("HOST", _URL.sub("URL", _QUOTED.sub("TEXT", message.strip())))
    said = _said(message)
    for rule in _RULES:
        if rule.pattern.search(skeleton):
            details = {_FAULT: rule.fault} if rule.fault else {}
            return rule.kind(f"{rule.sentence}: {said}.", hint=rule.hint, details=details)
    return EngineRefused(f"The push failed: {said}.")


def silent_registry(reference: str, seconds: float) -> RegistryUnreachable:
    """The failure of a push of which nothing was heard for so long."""
    return RegistryUnreachable(
        f"Nothing was heard of the push of {reference} for {seconds:.0f} s.",
        hint="See the registry's own log, or try again later.",
        details={_FAULT: "network"},
    )


def _said(message: str) -> str:
    text = clean(_QUERY.sub(r"\1…", _USER.sub(r"\1", message))).removeprefix("errors: ")
    return shorten(text.rstrip(".") or "the engine gave no reason", _MAX_SHOWN)


def should_retry(error: CaissonError) -> bool:
    """Network faults, 5xx and rate limits may pass; a denial does not, and neither does a lack of trust."""
    return isinstance(error, RegistryUnreachable) and error.details.get(_FAULT) != _TRUST


def retry_delay(attempt: int) -> float:
    """Seconds to wait after the attempt of that number (from 1): 2, 4, 8 …, 30 at most.

    The engine itself has tried a failing layer five times by then, for 50 s.

    >>> [retry_delay(attempt) for attempt in (1, 2, 3, 9)]
    [2.0, 4.0, 8.0, 30.0]
    """
    return min(_LONGEST_DELAY_SECONDS, 2.0 ** min(attempt, 10))


@dataclass
class PushRetries:
    """How much trying again is left to the pushes of one build: ``attempts`` a tag, ``RETRY_SECONDS`` over all tags.

    What counts is the waiting and the tries that failed again. No try begins after that time; one that has begun ends
    when the engine gives up on it.
    """

    attempts: int
    spent: float = 0.0

    def delay(self, error: CaissonError, attempt: int) -> float | None:
        """Seconds until the next try after ``attempt`` (from 1) failed so; None: it is the failure to tell."""
        delay = retry_delay(attempt)
        if not should_retry(error) or attempt >= self.attempts or self.spent + delay > RETRY_SECONDS:
            return None
        return delay

    def spend(self, seconds: float) -> None:
        """Count the wait before a try that failed again, and that try."""
        self.spent += seconds

    def give_up(self, error: CaissonError, attempt: int) -> CaissonError:
        """The failure of the last ``attempt``, which says how long was tried; unchanged after a single one."""
        if attempt == 1:
            return error
        said = f"{error.message} It was tried {attempt} times; {self.spent:.0f} s went into trying again."
        tried = {"attempts": attempt, "retry_seconds": round(self.spent, 1)}
        return type(error)(said, hint=error.hint, details={**error.details, **tried})


def parse_push_line(line: Mapping[str, Any]) -> PushProgress | Digest | CaissonError | None:
    """One object of the engine's stream: progress, the digest that the registry recorded, a failure, or nothing."""
    failure = line.get("error") or (line.get("errorDetail") or {}).get("message")
    if failure or "error" in line:
        return classify_push_error(str(failure or ""))
    digest = (line.get("aux") or {}).get("Digest")
    if digest:
        return Digest(str(digest))
    # The containerd store (26.1) says it in words only.
    if said := _DIGEST_SAID.fullmatch(str(line.get("status", ""))):
        return Digest(said[1])
    if not line.get("id"):
        return None
    detail = line.get("progressDetail") or {}
    return PushProgress(
        layer=str(line["id"]),
        status=str(line.get("status", "")),
        current=int(detail.get("current") or 0),
        total=int(detail.get("total") or 0),
    )


@dataclass(frozen=True)
class _Layer:
    current: int = 0
    total: int = 0
    done: bool = False
    retrying: bool = False


class PushLog:
    """The sum over all layers as lines for people, one a second at most; a push of under a second says nothing."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._said_at: float | None = None
        self._said = ""

    def add(self, progress: PushProgress, *, now: float) -> str:
        """A line to log, or ``""``; ``now`` in seconds of a clock that never goes back."""
        self._layers[progress.layer] = _advance(self._layers.get(progress.layer, _Layer()), progress)
        if self._said_at is None:
            self._said_at = now
        line = self._line()
        if now - self._said_at < _LINE_SECONDS or line == self._said:
            return ""
        self._said_at, self._said = now, line
        return line

    def _line(self) -> str:
        layers = self._layers.values()
        current, total = sum(layer.current for layer in layers), sum(layer.total for layer in layers)
        line = f"pushing: {sum(layer.done for layer in layers)} of {len(layers)} layers"
        if total:
            line += f", {format_size(current)} of {format_size(total)}"
        retrying = sum(layer.retrying for layer in layers)
        return f"{line}; the registry failed {retrying} of them, the engine tries again" if retrying else line


def _advance(layer: _Layer, progress: PushProgress) -> _Layer:
    status = progress.status
    if status.startswith(("Pushed", "Layer already exists", "Mounted from")):
        # The last line of progress is seldom that of the last byte.
        return _Layer(layer.total, layer.total, done=True)
    if status.startswith("Retrying in"):
        return _Layer(0, layer.total, retrying=True)
    # Tar headers take a layer beyond the size that was announced.
    total = max(progress.total, layer.total)
    return _Layer(min(progress.current, total), total)
