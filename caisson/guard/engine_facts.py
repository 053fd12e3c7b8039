"""Asks the engine once, at the guard's start, which versions it speaks."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path

from caisson.errors import EngineUnreachable
from caisson.guard.policy import choose_api
from caisson.guard.rules import EngineFacts
from caisson.unix_http import UnixConnection

_SECONDS = 10
_MOST_BYTES = 1 << 20
_API = re.compile(r"([0-9])\.([0-9]{1,3})")


def ask_engine(path: Path) -> tuple[EngineFacts, tuple[int, int]]:
    """What clients are told of the engine, and the API version to speak with it; raises ``EngineUnreachable``."""
    connection = UnixConnection(path, timeout=_SECONDS)
    try:
        connection.request("GET", "/_ping")
        ping = connection.getresponse()
        ping.read(_MOST_BYTES)
        connection.request("GET", "/version")
        answer = connection.getresponse()
        document = dict(json.loads(answer.read(_MOST_BYTES)))
        api = choose_api(_version(document, "ApiVersion"), _version(document, "MinAPIVersion"))
        return (
            EngineFacts(
                version=str(document.get("Version", "")),
                os=str(document.get("Os", "linux")),
                arch=str(document.get("Arch", "")),
                builder_version=ping.getheader("Builder-Version", "1"),
            ),
            api,
        )
    except (OSError, http.client.HTTPException) as error:
        raise EngineUnreachable(
            f"The Docker engine does not answer at {path} ({type(error).__name__}).",
            hint="Start Docker, or give the path of its socket.",
        ) from None
    except (ValueError, TypeError) as error:
        raise EngineUnreachable(f"The guard can't speak with the engine at {path}: {error}.") from None
    finally:
        connection.close()


def _version(document: dict[str, object], key: str) -> tuple[int, int]:
    match = _API.fullmatch(str(document.get(key, "")))
    if match is None:
        raise ValueError(f"its {key} is no version")
    return int(match[1]), int(match[2])
