"""How the embedded Prefect server is started: its command, its environment, and when it is healthy. Pure but for
the health check.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import NoReturn

from caisson.errors import ServiceUnreachable, SettingsInvalid
from caisson.settings import Settings
from deployments.encryption_key import keep_key
from deployments.logs import prefects_logging
from deployments.same_origin import is_loopback
from deployments.state import StateDir

# Inherited, these would point our processes to another Prefect than ours.
FOREIGN = ("PREFECT_API_KEY", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE", "PREFECT_HOME")
# Only the server enters the database, and only runs have a use for the builds' secrets.
DATABASE = ("CAISSON_DATABASE_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_PASSWORD")
_LATE_AFTER, _LATE_SECONDS = "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS", "3600"
_EVENTS_OF_EACH_RUN = tuple(f"prefect.flow-run.{state}" for state in ("Submitting", "Pending", "Running", "Completed"))
_DAY_SECONDS = 86_400
_BUILD_SECRETS = ("CAISSON_SECRET_", "CAISSON_REGISTRY_PASSWORD")


def server_url(settings: Settings) -> str:
    """Where this host reaches its own server; a wildcard address is reached on the loopback."""
    return url_of(settings.server_host, settings.server_port)


def url_of(host: str, port: int) -> str:
    """Where this host reaches what listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_command(settings: Settings, *, alone: bool = False) -> list[str]:
    """uvicorn on Prefect's app: what ``prefect server start`` does, in one process instead of two.

    ``alone``: no launcher keeps a worker alive beside it.
    """
    return [
        *(sys.executable, "-m", "uvicorn", "--factory"),
        f"deployments.server_app:{'create_lone_app' if alone else 'create_app'}",
        *("--host", settings.server_host, "--port", str(settings.server_port)),
        *("--log-level", "warning", "--timeout-keep-alive", "60", "--timeout-graceful-shutdown", "3"),
    ]


def run_server(settings: Settings) -> NoReturn:
    """Become the server: this process is replaced by it; raises ``SettingsInvalid`` as ``check_server`` does, and for a
    state directory that can't be used.
    """
    state = StateDir(settings.state_dir).create()
    check_server(settings)
    command = server_command(settings, alone=True)
    os.execve(command[0], command, server_environment(settings, state, os.environ))  # noqa: S606


def without_build_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without what only a run needs: the builds' secrets and the registry's password."""
    return {name: value for name, value in env.items() if not name.startswith(_BUILD_SECRETS)}


def server_environment(settings: Settings, state: StateDir, inherited: Mapping[str, str]) -> dict[str, str]:
    """The server's environment. Secrets go this way only: an argument is visible to every user of the host."""
    env = {name: value for name, value in without_build_secrets(inherited).items() if name not in FOREIGN}
    env |= {
        "PREFECT_HOME": str(state.prefect_home),
        "PREFECT_SERVER_API_HOST": settings.server_host,
        "PREFECT_SERVER_API_PORT": str(settings.server_port),
        "PREFECT_SERVER_UI_API_URL": "/api",
        # Its own place for the pages is beside its code, where a service may not write: there would be no pages.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(state.prefect_home / "ui"),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": server_url(settings),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # To wait is normal in a queue. Prefect marks each run that waits as late, by a state and an event of its own:
        # after its usual 15 s that keeps a server busy which is asked for many builds at once.
        _LATE_AFTER: inherited.get(_LATE_AFTER, _LATE_SECONDS),
        # Kept in memory, the lease of a dead holder would never come back after a restart of the server.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        # A host that is gone is called offline so much later than it could be.
        "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "5",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # A run each minute makes nearly all of them, and its states are in the database a second time.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": json.dumps(
            dict.fromkeys(("prefect.flow-run.heartbeat", *_EVENTS_OF_EACH_RUN), _DAY_SECONDS)
        ),
    }
    if settings.database_url:
        env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = settings.database_url
    else:
        database = state.prefect_home / "prefect.db"
        env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
        env.setdefault("PREFECT_SERVER_ENCRYPTION_KEY", keep_key(state.prefect_home / "encryption.key"))
    if settings.api_auth:
        env["PREFECT_SERVER_API_AUTH_STRING"] = settings.api_auth
    return env | prefects_logging(settings)


def client_environment(settings: Settings, state: StateDir, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of the worker and, through it, of every run."""
    env = {name: value for name, value in inherited.items() if name not in (*FOREIGN, *DATABASE)}
    env |= {
        "PREFECT_HOME": str(state.prefect_home),
        "PREFECT_API_URL": settings.api_url or f"{server_url(settings)}/api",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **settings_environment(settings),
    }
    if settings.api_auth:
        env["PREFECT_API_AUTH_STRING"] = settings.api_auth
    return env | prefects_logging(settings)


def settings_environment(settings: Settings) -> dict[str, str]:
    """The settings that are not at their defaults, as variables: children see them wherever they came from.

    Without the way into the database, which is the server's alone.
    """
    values = settings.model_dump(mode="json", include=settings.model_fields_set - {"database_url"})
    return {f"CAISSON_{name.upper()}": _variable(value) for name, value in values.items()}


def check_server(settings: Settings) -> None:
    """Raise ``SettingsInvalid`` when the server could not listen where the settings say, or must not: others would use
    the API without a password, and who has it can run commands on every host.
    """
    if not settings.api_auth and not is_loopback(settings.server_host):
        raise SettingsInvalid(
            f"CAISSON_SERVER_HOST: {settings.server_host or 'every address'} can be reached by others, and "
            "CAISSON_API_AUTH is not set.",
            hint="Set CAISSON_API_AUTH to user:password, or listen on 127.0.0.1.",
        )
    check_listening("SERVER", settings.server_host, settings.server_port)


def check_listening(variable: str, host: str, port: int, *, or_else: str = "") -> None:
    """Raise ``SettingsInvalid``, for ``CAISSON_<variable>_HOST`` or ``_PORT``, when nobody can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            where = f"{host}:{port}"
            if error.errno == errno.EADDRINUSE:
                raise SettingsInvalid(
                    f"CAISSON_{variable}_PORT: {where} is taken by another program.",
                    hint=f"Set CAISSON_{variable}_PORT to a free port{or_else}.",
                ) from None
            raise SettingsInvalid(
                f"CAISSON_{variable}_HOST: can't listen on {where}: {error.strerror or error}.",
                hint=f"Set CAISSON_{variable}_HOST to an address of this host.",
            ) from None


def is_healthy(api_url: str) -> bool:
    """Whether a Prefect API answers; ``/health`` asks for no password."""
    return is_there(f"{api_url.rstrip('/')}/health")


def is_there(url: str) -> bool:
    """Whether a GET of the URL is answered with 200, within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def wait_until_healthy(api_url: str, *, timeout_seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return when the API answers; raises ``ServiceUnreachable`` after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not is_healthy(api_url):
        if time.monotonic() >= deadline:
            raise ServiceUnreachable(
                f"No Prefect API answers at {api_url}.", hint="Start `caisson up`, or set CAISSON_API_URL."
            )
        sleep(0.1)


def _variable(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
