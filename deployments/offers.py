"""All the builds that wait for a worker, for it to choose fairly among them.

Prefect offers 200 runs at a time, in the order of their queues and then of their time. A repository that has asked for
more than that would hide all others behind it, and an urgent build too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import WorkerFlowRunResponse

from deployments.names import POOL

PAGE = 200
MOST = 1_000
"""Each costs a millisecond or two to read, and what is behind so many can wait for the next time."""


async def offered_runs(
    client: PrefectClient, queues: Sequence[str], *, most: int = MOST
) -> list[WorkerFlowRunResponse]:
    """The runs of the queues that are due, the oldest first in each; raises ``httpx.HTTPError``."""
    now = datetime.now(UTC)
    found = await _page(client, queues, now, None)
    if len(found) < PAGE:
        return found
    # A page is cut off somewhere: from here on one queue at a time, each in the order of time.
    offers = {offer.flow_run.id: offer for offer in found}
    for queue in queues:
        after: datetime | None = None
        while len(offers) < most:
            page = await _page(client, [queue], now, after)
            new = [offer for offer in page if offer.flow_run.id not in offers]
            offers |= {offer.flow_run.id: offer for offer in new}
            if len(page) < PAGE or (after is not None and not new):
                break
            after = page[-1].flow_run.next_scheduled_start_time
    return list(offers.values())


async def _page(
    client: PrefectClient, queues: Sequence[str], now: datetime, after: datetime | None
) -> list[WorkerFlowRunResponse]:
    body = {"work_queue_names": list(queues), "scheduled_before": now.isoformat(), "limit": PAGE}
    if after is not None:
        body["scheduled_after"] = after.isoformat()
    answer = await client.request(
        "POST", "/work_pools/{name}/get_scheduled_flow_runs", path_params={"name": POOL}, json=body
    )
    return WorkerFlowRunResponse.model_validate_list(answer.json())
