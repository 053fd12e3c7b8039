"""Old runs of a deployment that runs every minute, removed: kept, they would be most of the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

KEEP = timedelta(days=1)
KEEP_FAILED = timedelta(days=2)
_BATCH = 50
_MOST_BATCHES = 40


def forget_runs(deployment_id: UUID, now: datetime) -> int:
    """Remove the deployment's completed runs of more than a day ago, and all ended ones of more than two days ago.

    Returns how many; at most 2,000 a call. Raises what Prefect's client raises.
    """
    return _remove(deployment_id, ["COMPLETED"], now - KEEP) + _remove(
        deployment_id, ["FAILED", "CRASHED", "CANCELLED"], now - KEEP_FAILED
    )


def _remove(deployment_id: UUID, states: list[str], before: datetime) -> int:
    wanted = {
        "deployment_id": {"any_": [str(deployment_id)]},
        "state": {"type": {"any_": states}},
        "end_time": {"before_": before.isoformat()},
    }
    removed = 0
    with get_client(sync_client=True) as client:
        for _ in range(_MOST_BATCHES):
            try:
                # The client's list of paths does not have this one yet.
                answer = client.request(
                    "POST",
                    "/flow_runs/bulk_delete",  # type: ignore[arg-type]
                    json={"flow_runs": wanted, "limit": _BATCH},
                )
            except PrefectHTTPStatusError as error:
                if error.response.status_code == 404:
                    return removed
                raise
            found = len(answer.json()["deleted"])
            removed += found
            if found < _BATCH:
                break
    return removed
