"""The builds that wait or go on, as Prefect has them, and what each says of itself: its repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from caisson.git import DEFAULT_PORTS, parse_repository_url
from deployments.names import BUILD_FLOW
from deployments.prefect_api import PrefectApi
from deployments.trigger import PAGE

_PROTOCOLS = tuple(DEFAULT_PORTS)
_MOST_PAGES = 25


def repository_of(parameters: Mapping[str, Any]) -> str:
    """The repository that a run's parameters ask to build from, in one spelling; empty where they name none.

    >>> repository_of({"request": {"repository_url": "https://Git.example.com/team/app.git"}})
    'https://git.example.com/team/app'
    """
    request = parameters.get("request")
    return one_spelling(str(request.get("repository_url", ""))) if isinstance(request, Mapping) else ""


def build_runs(api: PrefectApi, states: Iterable[str]) -> list[dict[str, Any]]:
    """The flow runs of builds in these types of state, by when they are due; raises ``ServiceUnreachable``."""
    found: list[dict[str, Any]] = []
    for page in range(_MOST_PAGES):
        body = {
            "flows": {"name": {"any_": [BUILD_FLOW]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
            "sort": "NEXT_SCHEDULED_START_TIME_ASC",
            "limit": PAGE,
            "offset": page * PAGE,
        }
        runs: list[dict[str, Any]] = api.post("/flow_runs/filter", body)
        found += runs
        if len(runs) < PAGE:
            break
    return found


@lru_cache(maxsize=4096)
def one_spelling(url: str) -> str:
    """A repository's URL in its canonical form; as it is where it is none, which its build will tell."""
    try:
        return parse_repository_url(url, _PROTOCOLS).canonical()
    except ValueError:
        return url
