"""What a worker sees of its queues, on a stand-in that answers as Prefect does: 200 runs at most, queue by queue."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient

from deployments.offers import PAGE, Offers

EPOCH = datetime(2026, 5, 1, tzinfo=UTC)
BUILDS, CARE = ("b1", "shared"), "care-b1"


@dataclass
class Answer:
    content: list[dict[str, Any]]

    def json(self) -> list[dict[str, Any]]:
        return self.content


@dataclass
class Prefect:
    """``queues`` are the runs of each, by number, the oldest first; number N came at second N."""

    queues: dict[str, list[int]]
    asked: int = 0

    async def request(self, method: str, path: str, *, path_params: dict[str, str], json: dict[str, Any]) -> Answer:
        self.asked += 1
        after = datetime.fromisoformat(json["scheduled_after"]) if "scheduled_after" in json else EPOCH
        runs = [
            (queue, number)
            for queue in json["work_queue_names"]
            for number in self.queues.get(queue, [])
            if EPOCH + timedelta(seconds=number) >= after
        ]
        return Answer([_offer(queue, number) for queue, number in runs[: json["limit"]]])


def _offer(queue: str, number: int) -> dict[str, Any]:
    at = (EPOCH + timedelta(seconds=number)).isoformat()
    flow_run = {"id": str(UUID(int=number)), "flow_id": str(UUID(int=0)), "work_queue_name": queue}
    return {
        "work_pool_id": str(UUID(int=1)),
        "work_queue_id": str(UUID(int=2)),
        "flow_run": {**flow_run, "next_scheduled_start_time": at},
    }


def look(prefect: Prefect, offers: Offers) -> set[int]:
    found = asyncio.run(offers.runs(cast(PrefectClient, prefect)))
    numbers = [offer.flow_run.id.int for offer in found]
    assert len(set(numbers)) == len(numbers)
    return set(numbers)


def test_what_fits_into_one_page_is_one_question() -> None:
    prefect = Prefect({"b1": [1, 2], "shared": [3]})
    assert look(prefect, Offers(BUILDS, CARE)) == {1, 2, 3}
    assert prefect.asked == 1


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_all_that_waits_is_seen_where_it_can_be(count: int) -> None:
    prefect = Prefect({"b1": list(range(count)), "care-b1": [count], "shared": [count + 1]})
    assert look(prefect, Offers(BUILDS, CARE)) == set(range(count + 2))


def test_a_long_queue_hides_no_other() -> None:
    prefect = Prefect({"b1": list(range(1_500)), "care-b1": [2_000], "shared": list(range(3_000, 3_500))})
    seen = look(prefect, Offers(BUILDS, CARE))
    assert {0, 2_000, 3_000} <= seen
    assert len(seen) <= 1_000 + PAGE


def test_what_is_behind_many_is_seen_in_turn_and_the_oldest_every_time() -> None:
    prefect = Prefect({"b1": list(range(2_500)), "shared": list(range(3_000, 5_500))})
    offers, seen = Offers(BUILDS, CARE), set[int]()
    for _ in range(8):
        now = look(prefect, offers)
        assert set(range(PAGE)) | set(range(3_000, 3_000 + PAGE)) <= now
        seen |= now
    assert seen == set(range(2_500)) | set(range(3_000, 5_500))


def test_many_runs_of_one_moment_end_the_look() -> None:
    assert look(Prefect({"shared": [5] * (2 * PAGE)}), Offers(BUILDS, CARE)) == {5}


def test_care_and_the_oldest_build_are_to_be_had_without_all_the_others() -> None:
    prefect = Prefect({"b1": list(range(PAGE)), "care-b1": [2_000, 2_001], "shared": [3_000]})
    offers, client = Offers(BUILDS, CARE), cast(PrefectClient, prefect)
    care, builds = asyncio.run(offers.care(client)), asyncio.run(offers.first_build(client))
    assert [offer.flow_run.id.int for offer in care] == [2_000, 2_001]
    assert [offer.flow_run.id.int for offer in builds] == [0]
    assert prefect.asked == 2
