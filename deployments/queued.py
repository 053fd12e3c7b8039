"""What a build's flow run says of itself while it waits: its repository, as the queue compares it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from caisson.git import DEFAULT_PORTS, parse_repository_url

_PROTOCOLS = tuple(DEFAULT_PORTS)


def repository_of(parameters: Mapping[str, Any]) -> str:
    """The repository that a run's parameters ask to build from, in one spelling; empty where they name none.

    >>> repository_of({"request": {"repository_url": "https://Git.example.com/team/app.git"}})
    'https://git.example.com/team/app'
    """
    request = parameters.get("request")
    return one_spelling(str(request.get("repository_url", ""))) if isinstance(request, Mapping) else ""


@lru_cache(maxsize=4096)
def one_spelling(url: str) -> str:
    """A repository's URL in its canonical form; as it is where it is none, which its build will tell."""
    try:
        return parse_repository_url(url, _PROTOCOLS).canonical()
    except ValueError:
        return url
