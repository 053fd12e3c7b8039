"""All the builds that wait for a worker, for it to choose fairly among them.

Prefect offers 200 runs at a time, in the order of their queues and then of their time. A repository that has asked for
more than that would hide all others behind it, and an urgent build too; a queue that is long would hide the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import WorkerFlowRunResponse

from deployments.names import POOL

PAGE = 200
MOST = 1_000
"""Each costs a millisecond or two to read."""


@dataclass
class _Line:
    """One queue as it is read now: ``position`` is the time of the last run of its last page, None before the first."""

    queue: str
    position: datetime | None = None


class Offers:
    """What one worker's queues offer. Of each the oldest page is seen every time; where there are more runs than are
    read at once, the others come in turn, from one time to the next.
    """

    def __init__(self, builds: Sequence[str], care: str, *, most: int = MOST) -> None:
        """``builds`` are the queues of builds, ``care`` that of what looks after the host."""
        self._builds, self._care, self._most = builds, care, most
        self._resume: dict[str, datetime] = {}

    async def runs(self, client: PrefectClient) -> list[WorkerFlowRunResponse]:
        """Runs that are due, of every queue that has some; raises ``httpx.HTTPError``."""
        now = datetime.now(UTC)
        queues = (*self._builds, self._care)
        found = await _page(client, queues, now, None)
        if len(found) < PAGE:
            self._resume.clear()
            return found
        # A page is cut off somewhere: from here on each queue by itself, in the order of time, a page of each in turn.
        offers: dict[UUID, WorkerFlowRunResponse] = {}
        lines = [_Line(queue) for queue in queues]
        while lines and (len(offers) < self._most or lines[0].position is None):
            line = lines.pop(0)
            if await self._read_on(client, line, now, offers):
                lines.append(line)
        self._resume.update({line.queue: line.position for line in lines if line.position is not None})
        return list(offers.values())

    async def care(self, client: PrefectClient) -> list[WorkerFlowRunResponse]:
        """What is due of the host's care alone, for when there is no room for builds; raises ``httpx.HTTPError``.

        To read a thousand builds in vain, over and over, would keep the server from taking more in.
        """
        return await _page(client, [self._care], datetime.now(UTC), None)

    async def first_build(self, client: PrefectClient) -> list[WorkerFlowRunResponse]:
        """One build that is due, if there is one; raises ``httpx.HTTPError``."""
        return await _page(client, self._builds, datetime.now(UTC), None, limit=1)

    async def _read_on(
        self, client: PrefectClient, line: _Line, now: datetime, offers: dict[UUID, WorkerFlowRunResponse]
    ) -> bool:
        """Add a queue's next page; False where it was the last."""
        page = await _page(client, [line.queue], now, line.position)
        is_first, before = line.position is None, len(offers)
        offers.update({offer.flow_run.id: offer for offer in page})
        if len(page) < PAGE or (len(offers) == before and not is_first):
            self._resume.pop(line.queue, None)
            return False
        line.position = page[-1].flow_run.next_scheduled_start_time or now
        if is_first:
            line.position = max(line.position, self._resume.get(line.queue, line.position))
        return True


async def _page(
    client: PrefectClient, queues: Sequence[str], now: datetime, after: datetime | None, *, limit: int = PAGE
) -> list[WorkerFlowRunResponse]:
    body = {"work_queue_names": list(queues), "scheduled_before": now.isoformat(), "limit": limit}
    if after is not None:
        body["scheduled_after"] = after.isoformat()
    answer = await client.request(
        "POST", "/work_pools/{name}/get_scheduled_flow_runs", path_params={"name": POOL}, json=body
    )
    return WorkerFlowRunResponse.model_validate_list(answer.json())
