"""``python -m deployments.worker_main [READY_FD]``: this host's worker, as the launcher starts it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from caisson.errors import CaissonError
from caisson.settings import Settings, load_settings
from deployments.apply import apply_deployments
from deployments.logs import configure_logging
from deployments.server import wait_until_healthy
from deployments.worker import CaissonWorker, Stop
from tasks.reap import Reaper

ABANDONED_SECONDS = 12.0


def main() -> int:
    """Apply the deployments, then serve until SIGTERM; a second one ends the drain."""
    parent = os.getppid()
    try:
        settings = load_settings()
        configure_logging(settings)
        wait_until_healthy(os.environ["PREFECT_API_URL"], timeout_seconds=600)
        for name in apply_deployments(settings):
            logging.getLogger("caisson.worker").info("Deployment %s is applied", name)
    except CaissonError as error:
        print(f"caisson: {error}", file=sys.stderr)
        return error.exit_code
    asyncio.run(_serve(settings, parent, ready=int(sys.argv[1]) if len(sys.argv) > 1 else None))
    return 0


async def _serve(settings: Settings, parent: int, *, ready: int | None) -> None:
    stop = Stop()

    def on_signal() -> None:
        if os.getppid() == parent:
            stop.request()
            return
        # The launcher was killed, and the server with it: whatever waits for an answer of its must not keep us.
        stop.abandon()
        asyncio.get_running_loop().call_later(ABANDONED_SECONDS, os._exit, 1)

    def on_ready() -> None:
        if ready is not None:
            os.write(ready, b"ready\n")
            os.close(ready)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)

    await CaissonWorker(settings, reaper=Reaper(settings)).serve(stop, on_ready=on_ready)


if __name__ == "__main__":
    sys.exit(main())
