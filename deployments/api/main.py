"""The API's process: a child of ``caisson up``."""

from __future__ import annotations

import sys

import uvicorn

from caisson.errors import CaissonError
from caisson.settings import load_settings
from deployments.api.app import create_app
from deployments.logs import configure_logging

GRACE_SECONDS = 2
SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the others from it; Python's own 5 ms add up for those who only pass on."""


def main() -> int:
    """Serve until SIGTERM; returns the exit code."""
    try:
        settings = load_settings()
        configure_logging(settings)
        app = create_app(settings)
    except CaissonError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    sys.setswitchinterval(SWITCH_SECONDS)
    uvicorn.run(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        # A caller can't choose the address that its failures are counted for.
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
