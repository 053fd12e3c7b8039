"""What the OpenAPI document of Caisson's own API says holds, by all checks of schemathesis, on a real server."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caisson.tokens import make_grant
from deployments.gateway import answers, gateway_url
from deployments.names import POOL
from deployments.token_store import TokenStore
from tests.flows.caisson_host import CaissonHost, wait_for

CONFIG = Path(__file__).parent / "schemathesis.toml"


@pytest.fixture
def nothing_begins(caisson: CaissonHost) -> Iterator[None]:
    """What is asked for meanwhile waits or is cancelled, and is gone afterwards."""
    queue = f"/work_pools/{POOL}/queues/{caisson.name}"
    asked = {
        "work_queue_name": {"any_": [caisson.name]},
        "state": {"type": {"any_": ["SCHEDULED", "CANCELLED"]}},
        "expected_start_time": {"after_": datetime.now(UTC).isoformat()},
    }
    with caisson.api as api:
        api.patch(queue, {"is_paused": True})
        yield
        while api.post("/flow_runs/bulk_delete", {"flow_runs": asked})["deleted"]:
            pass
        api.patch(queue, {"is_paused": False})


@pytest.mark.usefixtures("nothing_begins")
def test_schemathesis_finds_nothing(caisson: CaissonHost, tmp_path: Path) -> None:
    url = gateway_url(caisson.settings)
    wait_for("the API answers", lambda: answers(url))
    token, _ = TokenStore.of(caisson.settings).create("schema", make_grant(["build", "read"]), lifetime=None)
    began = time.monotonic()
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", f"--config-file={CONFIG}", "run"),
            *(f"{url}/api/openapi.json", f"--header=Authorization: Bearer {token}"),
            *("--seed=1", "--max-examples=10", "--phases=examples,coverage,fuzzing,stateful", "--workers=2"),
            *("--continue-on-failure", "--warnings=off", "--no-color"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    print(f"\n  schemathesis: {time.monotonic() - began:.0f} s; {done.stdout[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 generated" not in done.stdout
    # Each link of the document was followed, from an answer to a request that was true to it.
    covered, total = re.findall(r"API Links: +(\d+) covered / \d+ selected / (\d+) total", done.stdout)[0]
    assert int(covered) == int(total) > 0, done.stdout
