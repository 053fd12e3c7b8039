"""What one look at the disks costs while all is well, and what a forecast over two weeks does. No engine is needed.

python -m tests.bench_disk
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from caisson.disk_history import DiskHistory
from caisson.disk_state import read_state, write_state
from caisson.disk_watch import Look, look, report
from caisson.engine import EngineInfo
from caisson.settings import Settings
from tests.figures import Figures

TURNS = 200
REACH_SECONDS = 0.005


def bench_disk(figures: Figures) -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory(prefix="caisson-bench-") as directory:
        _bench(figures, Settings(_env_file=None, state_dir=Path(directory) / "state", docker_data_root=directory))


def _bench(figures: Figures, settings: Settings) -> None:
    calls = 0

    def ask() -> EngineInfo:
        nonlocal calls
        calls += 1
        return EngineInfo("26.1.5", "1.45", "overlay2", "cgroupfs", 1, "/", (), 2, 1 << 30, containerd_store=False)

    start = datetime.now(UTC) - timedelta(days=2)

    def idle(turn: int) -> None:
        found = look(settings, read_state(settings.state_dir), start + turn * timedelta(minutes=1), ask=ask)
        write_state(settings.state_dir, found.state)

    checks = _times(idle)
    median = statistics.median(checks)
    verdict = figures.judge(
        "idle check of the disks",
        f"{median * 1000:.2f} ms, {calls} engine call",
        f"{REACH_SECONDS * 1000:g} ms, no engine call beyond the first",
        met=median < REACH_SECONDS and calls == 1,
    )
    print(f"\na look at the disks: {_shown(checks)}, {calls} engine call in {TURNS} looks   {verdict}")
    found = look(settings, read_state(settings.state_dir), start, ask=ask)
    # Two days of a sample a minute, as the ledger keeps them.
    history = DiskHistory(settings, start)
    for minute in range(2 * 1440):
        history.record(replace(found, at=start + minute * timedelta(minutes=1)))
    now = start + timedelta(days=2)
    recorded = _times(lambda turn: _record(settings, replace(found, at=now + turn * timedelta(minutes=1))), 20)
    print(f"  to record it in the ledger:         {_shown(recorded)}")
    print(f"  forecast and report, 2,880 samples: {_shown(_times(lambda _: _report(settings, now), 20))}")


def _record(settings: Settings, found: Look) -> None:
    DiskHistory(settings, found.at).record(found)


def _report(settings: Settings, now: datetime) -> None:
    found = look(settings, read_state(settings.state_dir), now)
    history = DiskHistory(settings, now)
    report(settings, found, history.of, resets=history.prunes())


def _times(call: Callable[[int], None], turns: int = TURNS) -> list[float]:
    times = []
    for turn in range(turns):
        began = time.perf_counter()
        call(turn)
        times.append(time.perf_counter() - began)
    return times


def _shown(times: list[float]) -> str:
    return f"{statistics.median(times) * 1000:.2f} ms (median), {max(times) * 1000:.1f} ms at most"


def main() -> int:
    figures = Figures()
    bench_disk(figures)
    return figures.conclude()


if __name__ == "__main__":
    sys.exit(main())
