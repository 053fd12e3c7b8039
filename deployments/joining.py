"""A host joins others, and leaves them: its connection, its queues and deployments, and what Prefect has of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, urlsplit

from caisson.connection import Connection, forget_connection, read_connection, write_connection
from caisson.errors import RequestInvalid, ServiceUnreachable, SettingsInvalid
from caisson.settings import Settings
from deployments.host_states import PAGE, HostState, read_host_states
from deployments.hosts import variable_name
from deployments.names import POOL, care_queue, host_of_switch, host_queue
from deployments.prefect_api import PrefectApi
from deployments.server import client_environment
from deployments.state import StateDir, find_running

Say = Callable[[str], None]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_APPLY = "from caisson.settings import load_settings; from deployments.apply import apply_deployments as apply"


def api_url_of(text: str) -> str:
    """The URL of a Prefect API as it was typed, with the ``/api`` that it ends in.

    Raises ``RequestInvalid``; a URL with a password in it is never quoted.

    >>> api_url_of("https://caisson.example.com:4200/")
    'https://caisson.example.com:4200/api'
    """
    parts = urlsplit(text.strip())
    if parts.username is not None or parts.password is not None:
        raise RequestInvalid("--api: it holds a password.", hint="Give that by --token or CAISSON_JOIN_TOKEN.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise RequestInvalid(
            f"--api: {text[:200]!r} is no URL of a Prefect API.", hint="It looks like https://caisson.example.com:4200."
        )
    plain = text.strip().rstrip("/")
    return plain if parts.path.rstrip("/").endswith("/api") else f"{plain}/api"


def read_token(file: str) -> str:
    """The API's ``user:password`` from a file (``-`` is standard input), else from CAISSON_JOIN_TOKEN.

    Never from an argument: every user of a host can read those of every process. Empty where there is none. Raises
    ``RequestInvalid``.
    """
    if file == "-":
        token = sys.stdin.readline()
    elif file:
        try:
            token = Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            if ":" in file and isinstance(error, OSError):
                raise RequestInvalid(
                    "--token: it takes the name of a file, or - for standard input, and no token: every user of this "
                    "host can read the arguments of a program.",
                    hint="Put it into a file or into CAISSON_JOIN_TOKEN; this one may be known to others now.",
                ) from None
            reason = getattr(error, "strerror", None) or "it is no text"
            raise RequestInvalid(f"--token: {file} can't be read: {reason}.") from None
    else:
        token = os.environ.get("CAISSON_JOIN_TOKEN", "")
    token = token.strip()
    if token and (":" not in token or any(character.isspace() for character in token)):
        raise RequestInvalid(
            "The token is not of the form user:password.", hint="It is CAISSON_API_AUTH of the host with the server."
        )
    return token


def join(settings: Settings, api: str, token: str, *, say: Say) -> None:
    """Connect this host to the Prefect API of others and apply its deployments there.

    Nothing is kept unless the API answers, takes the token, runs a Prefect that this Caisson can talk to, and has no
    other live host of this name. Raises ``RequestInvalid``, ``ServiceUnreachable``, ``SettingsInvalid``.
    """
    url = api_url_of(api)
    if find_running(settings) is not None:
        raise SettingsInvalid("A Caisson runs on this host.", hint="Stop it with `caisson down`, and join then.")
    state = StateDir(settings.state_dir).create()
    if token and url.startswith("http://") and urlsplit(url).hostname not in _LOOPBACK:
        say(f"Warning: {url} has no TLS, so the token can be read on the way. Use https://, or a private network.")
    with PrefectApi(url, auth=token) as prefect:
        _check_version(prefect)
        live = next((host for host in read_host_states(prefect) if host.name == settings.host_name), None)
        if live is not None and live.state in ("online", "draining"):
            raise SettingsInvalid(
                f"CAISSON_HOST_NAME: a live host is called {settings.host_name} already.",
                hint="Set it to a name that no other host has.",
            )
    joined = settings.model_copy(update={"api_url": url, "api_auth": token})
    before = read_connection(settings.state_dir)
    # First, so that the child finds it; and as it was before when that fails.
    write_connection(settings.state_dir, Connection(url, token))
    try:
        for name in _apply(joined, state):
            say(f"Deployment {name} is applied.")
    except BaseException:
        if before is None:
            forget_connection(settings.state_dir)
        else:
            write_connection(settings.state_dir, before)
        raise
    say(f"Host {settings.host_name} has joined {url}. Start its worker with `caisson up`.")


def leave(settings: Settings, *, say: Say) -> None:
    """Remove this host's queues and deployments, with the builds that wait for it, and forget the connection.

    Alerts expect no more prunes of it.

    Raises ``SettingsInvalid`` while a Caisson runs here, ``ServiceUnreachable`` when the API can't be asked.
    """
    if find_running(settings) is not None:
        raise SettingsInvalid(
            "A Caisson runs on this host.",
            hint="Let it finish with `caisson drain --wait`, stop it with `caisson down`.",
        )
    connection = read_connection(settings.state_dir)
    if connection is None:
        raise SettingsInvalid(f"Host {settings.host_name} has joined no others.")
    host = settings.host_name
    with PrefectApi(connection.api_url, auth=connection.token) as prefect:
        ours = {"deployments": {"name": {"any_": [host]}}, "work_pools": {"name": {"any_": [POOL]}}}
        for deployment in prefect.post("/deployments/filter", ours):
            prefect.delete(f"/deployments/{deployment['id']}")
        for queue in (host_queue(host), care_queue(host)):
            prefect.delete(f"/work_pools/{POOL}/queues/{quote(queue, safe='')}")
        prefect.delete(f"/work_pools/{POOL}/workers/{quote(host, safe='')}")
        prefect.delete(f"/variables/name/{variable_name(host)}")
        for switch in _switches(prefect, host):
            prefect.delete(f"/automations/{switch}")
    forget_connection(settings.state_dir)
    say(f"Host {host} has left {connection.api_url}.")


def _switches(prefect: PrefectApi, host: str) -> list[str]:
    """The automations that would tell of this host's silence, by ID."""
    found: list[dict[str, str]] = []
    while page := prefect.post("/automations/filter", {"limit": PAGE, "offset": len(found)}):
        found += page
    return [automation["id"] for automation in found if host_of_switch(automation["name"]) == host]


def set_drain(api: PrefectApi, host: str, *, drain: bool) -> HostState:
    """Have a host take no more builds, or take them again; returns it as it was. Raises ``RequestInvalid``."""
    states = {state.name: state for state in read_host_states(api)}
    if host not in states:
        known = ", ".join(sorted(states)) or "none"
        raise RequestInvalid(f"host: there is no host {host[:80]!r}; known: {known}.")
    api.patch(f"/work_pools/{POOL}/queues/{quote(host_queue(host), safe='')}", {"is_paused": drain})
    return states[host]


def _check_version(prefect: PrefectApi) -> None:
    theirs, ours = str(prefect.get("/admin/version")), version("prefect")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise ServiceUnreachable(
            f"{prefect.api_url} runs Prefect {theirs}, and this Caisson needs {ours}.",
            hint="Have the same version of Caisson on all hosts.",
        )


def _apply(settings: Settings, state: StateDir) -> list[str]:
    """Apply the deployments in a child: Prefect reads its settings from the environment, once."""
    command = [sys.executable, "-c", f"{_APPLY}; print(*apply(load_settings()), sep='\\n')"]
    env = client_environment(settings, state, os.environ)
    made = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if made.returncode:
        last = made.stderr.strip().splitlines()[-1:] or ["it gave no reason"]
        raise ServiceUnreachable(f"The deployments can't be applied: {last[0][:500]}")
    return made.stdout.split()
