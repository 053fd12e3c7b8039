"""Builds as Prefect tells of them, read no oftener than needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from caisson.build import report_file
from caisson.errors import ServiceUnreachable
from caisson.report import REPORT_DATA_KEY, BuildReport
from caisson.settings import Settings
from caisson.tokens import Grant
from deployments.api.build_queue import queue_places
from deployments.api.build_view import (
    STATES,
    BuildDetail,
    BuildState,
    BuildSummary,
    QueuePlace,
    asked_for,
    detail_of,
    parse_report,
    running_step,
    state_of,
    summary_of,
)
from deployments.api.paging import BuildCursor, next_cursor
from deployments.api.read_cache import ReadCache
from deployments.names import BUILD_FLOW
from deployments.prefect_api import PrefectApi
from deployments.prefect_pool import PrefectPool
from deployments.trigger import FINAL

_ACTIVE_SECONDS = 0.5
# A run that has ended may still be begun anew in Prefect.
_ENDED_SECONDS = 5.0
_SCANNED_AT_ONCE = 200
_MOST_SCANS = 10
_TYPES = {state: state_type for state_type, state in STATES.items()}


@dataclass(frozen=True)
class BuildFilter:
    """Which builds are wanted; empty is any."""

    states: frozenset[BuildState] = frozenset()
    image: str = ""
    repository_url: str = ""

    def takes(self, run: Mapping[str, Any]) -> bool:
        image, url, _ = asked_for(run)
        return (not self.image or image == self.image) and (not self.repository_url or url == self.repository_url)


class BuildReader:
    """Reads builds; every call raises ``ServiceUnreachable`` when Prefect does not answer."""

    def __init__(self, settings: Settings, prefect: PrefectPool) -> None:
        self._settings = settings
        self._prefect = prefect
        self._details: ReadCache[BuildDetail | None] = ReadCache(
            lambda build: _ENDED_SECONDS if build is not None and build.final else _ACTIVE_SECONDS
        )
        self._pages: ReadCache[list[dict[str, Any]]] = ReadCache(lambda _: _ACTIVE_SECONDS, most=64)
        self._places: ReadCache[dict[str, QueuePlace]] = ReadCache(lambda _: 2 * _ACTIVE_SECONDS, most=1)
        self._flow_id = ""

    def find(self, build_id: str, grant: Grant) -> BuildDetail | None:
        """A build that is within the grant; None where there is no such build, or it is none of the caller's."""
        build = self._details.get(build_id, lambda: self._read(build_id))
        if build is None or not grant.covers(build.image, build.repository_url):
            return None
        return build

    def new(self, run: Mapping[str, Any]) -> BuildDetail:
        """A build whose run Prefect has just made, and told of in its answer."""
        return detail_of(run, step="", report=None, place=self._all_places().get(str(run["id"])))

    def forget(self, build_id: str) -> None:
        """What is known of a build is old: it was changed just now."""
        self._details.drop(build_id)

    def page(
        self, wanted: BuildFilter, grant: Grant, *, limit: int, cursor: BuildCursor | None
    ) -> tuple[list[BuildSummary], BuildCursor | None]:
        """A page of builds within the grant, the newest first, and where the next one begins; None after the last.

        A page may be short before the last: many builds were looked at, and few were wanted.
        """
        found: list[dict[str, Any]] = []
        filtered = bool(grant.limited or wanted.image or wanted.repository_url)
        for _ in range(_MOST_SCANS):
            size = _SCANNED_AT_ONCE if filtered else limit
            runs = self._runs(wanted.states, size, cursor)
            for number, run in enumerate(runs):
                if len(found) == limit:
                    return self._summaries(found), _after(runs[:number], cursor)
                image, url, _ref = asked_for(run)
                if wanted.takes(run) and grant.covers(image, url):
                    found.append(run)
            cursor = _after(runs, cursor)
            if len(runs) < size:
                return self._summaries(found), None
            if len(found) == limit:
                break
        return self._summaries(found), cursor

    def close(self) -> None:
        for cache in (self._details, self._pages, self._places):
            cache.close()

    def _summaries(self, runs: list[dict[str, Any]]) -> list[BuildSummary]:
        places = self._all_places() if any(state_of(run) is BuildState.QUEUED for run in runs) else {}
        return [summary_of(run, places.get(str(run["id"]))) for run in runs]

    def _runs(self, states: frozenset[BuildState], limit: int, cursor: BuildCursor | None) -> list[dict[str, Any]]:
        def fetch() -> list[dict[str, Any]]:
            runs: dict[str, Any] = {}
            if states:
                runs["state"] = {"type": {"any_": sorted(_TYPES[state] for state in states)}}
            if cursor is not None:
                runs["expected_start_time"] = {"before_": cursor.at.isoformat()}
                runs["id"] = {"not_any_": list(cursor.seen)}
            with self._prefect.api() as api:
                found: list[dict[str, Any]] = api.post(
                    "/flow_runs/filter",
                    {
                        "flows": {"name": {"any_": [BUILD_FLOW]}},
                        **({"flow_runs": runs} if runs else {}),
                        "sort": "EXPECTED_START_TIME_DESC",
                        "limit": limit,
                    },
                )
            return found

        return self._pages.get((states, limit, cursor), fetch)

    def _all_places(self) -> dict[str, QueuePlace]:
        def fetch() -> dict[str, QueuePlace]:
            with self._prefect.api() as api:
                return queue_places(api, self._settings)

        return self._places.get("all", fetch)

    def _read(self, build_id: str) -> BuildDetail | None:
        with self._prefect.api() as api:
            try:
                run = api.get(f"/flow_runs/{build_id}")
                if not self._flow_id:
                    self._flow_id = str(api.get(f"/flows/name/{BUILD_FLOW}")["id"])
            except ServiceUnreachable as error:
                if error.details.get("status") == 404:
                    return None
                raise
            if str(run["flow_id"]) != self._flow_id:
                return None
            step, report = "", None
            if run["state_type"] == "RUNNING":
                steps = {
                    "flow_runs": {"id": {"any_": [build_id]}},
                    "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
                }
                step = running_step(api.post("/task_runs/filter", steps))
            elif run["state_type"] in FINAL:
                report = self._report(api, build_id)
        place = self._all_places().get(build_id) if state_of(run) is BuildState.QUEUED else None
        return detail_of(run, step=step, report=report, place=place)

    def _report(self, api: PrefectApi, build_id: str) -> BuildReport | None:
        try:
            found = parse_report(report_file(self._settings, build_id).read_bytes())
        except OSError:
            # Another host's, or one that was dropped here.
            found = None
        if found is not None:
            return found
        wanted = {"artifacts": {"key": {"any_": [REPORT_DATA_KEY]}, "flow_run_id": {"any_": [build_id]}}, "limit": 1}
        return next((parse_report(artifact.get("data")) for artifact in api.post("/artifacts/filter", wanted)), None)


def _after(runs: list[dict[str, Any]], before: BuildCursor | None) -> BuildCursor | None:
    rows = [(datetime.fromisoformat(run.get("expected_start_time") or run["created"]), str(run["id"])) for run in runs]
    return next_cursor(rows, before) or before
