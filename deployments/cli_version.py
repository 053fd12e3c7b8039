"""``caisson version``: answers in a quarter of a second, so it asks the engine itself and imports no client library."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import os
import platform
import socket
from pathlib import Path

import typer

from caisson.errors import CaissonError

_ENGINE_SECONDS = 1.0
_DEFAULT_HOST = "unix:///var/run/docker.sock"


def print_versions(*, as_json: bool) -> None:
    """Each name and version; the engine's only where one answers."""
    versions = {
        "caisson": _installed("caisson"),
        "prefect": _installed("prefect"),
        "docker SDK": _installed("docker"),
        "python": platform.python_version(),
        "engine": engine_version(docker_host()),
    }
    if as_json:
        typer.echo(
            json.dumps({name.replace(" ", "_").lower(): version for name, version in versions.items()}, indent=2)
        )
    else:
        for name, version in versions.items():
            typer.echo(f"{name:<11}{version or '-'}")


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def docker_host() -> str:
    """Where the engine is, by the variable alone where no file could say otherwise: settings take 0.3 s to load."""
    if not Path(".env").exists() and not Path("caisson.toml").exists():
        variables = {name.upper(): value for name, value in os.environ.items()}
        return variables.get("CAISSON_DOCKER_HOST", _DEFAULT_HOST)
    from caisson.settings import load_settings

    try:
        return load_settings().docker_host
    except CaissonError:
        return ""


def engine_version(address: str) -> str:
    """The version that the engine at a unix socket tells, with its API's; empty when it does not answer."""
    connection = http.client.HTTPConnection("docker", timeout=_ENGINE_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_ENGINE_SECONDS)
    try:
        connection.sock.connect(address.removeprefix("unix://"))
        connection.request("GET", "/version")
        answer = json.loads(connection.getresponse().read())
        return f"{answer['Version']} (API {answer['ApiVersion']})"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return ""
    finally:
        connection.close()
