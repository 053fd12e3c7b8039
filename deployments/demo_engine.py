"""What the demonstration asks of the engine beyond a build: where containers reach this host, and to run an image."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote

from caisson.errors import EngineRefused, EngineUnreachable
from caisson.unix_http import UnixConnection

LABEL_DEMO = "caisson.demo"

_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.1
_MOST_OUTPUT = 64 << 10


@dataclass(frozen=True)
class Ran:
    """What a container did: its output, both streams as they came, and its exit code; None: it was still running."""

    output: str
    exit_code: int | None


def gateway(socket_path: str, network: str) -> str:
    """The address of this host in the engine's network; raises ``EngineUnreachable``, ``EngineRefused``."""
    with _Engine(socket_path) as engine:
        found = gateway_of(json.loads(engine.ask("GET", f"/networks/{quote(network, safe='')}")))
    if not found:
        raise EngineRefused(
            f"The engine's network {network} has no IPv4 gateway: its containers can't reach this host."
        )
    return found


def gateway_of(network: Mapping[str, Any]) -> str:
    """The IPv4 gateway in the engine's description of a network; empty where it has none.

    For a bridge that was there before it, engine 20.10 names no gateway; it is the subnet's first address then, by
    the default of libnetwork's IPAM.

    >>> gateway_of({"IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.9"}]}})
    '172.17.0.9'
    >>> gateway_of({"IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "172.17.0.0/16"}]}})
    '172.17.0.1'
    """
    for config in network.get("IPAM", {}).get("Config") or []:
        subnet = ip_network(config.get("Subnet", "::/0"), strict=False)
        if subnet.version == 4:
            return str(config.get("Gateway") or subnet.network_address + 1)
    return ""


def run_image(socket_path: str, image: str, *, seconds: float) -> Ran:
    """Run a container of the image with its own command, no longer than ``seconds``, and remove it.

    Raises ``EngineRefused`` for an image that has no command, ``EngineUnreachable``.
    """
    body = {
        "Image": image,
        "Labels": {LABEL_DEMO: "run"},
        "HostConfig": {"SecurityOpt": ["no-new-privileges"], "Memory": 1 << 30, "PidsLimit": 512},
    }
    with _Engine(socket_path) as engine:
        container = json.loads(engine.ask("POST", "/containers/create", body))["Id"]
        try:
            engine.ask("POST", f"/containers/{container}/start")
            exit_code = _await_exit(engine, container, seconds)
            logs = engine.ask("GET", f"/containers/{container}/logs?stdout=1&stderr=1&tail=100")
        finally:
            engine.ask("DELETE", f"/containers/{container}?force=1&v=1")
    return Ran(output=demultiplex(logs)[:_MOST_OUTPUT].decode(errors="replace"), exit_code=exit_code)


def demultiplex(stream: bytes) -> bytes:
    """The output out of the engine's frames: a byte for the stream, three of nothing, four of length, then the text.

    >>> demultiplex(b"\\x01\\0\\0\\0\\0\\0\\0\\x03abc\\x02\\0\\0\\0\\0\\0\\0\\x01d")
    b'abcd'
    """
    output = bytearray()
    position = 0
    while position + 8 <= len(stream):
        length = int.from_bytes(stream[position + 4 : position + 8], "big")
        output += stream[position + 8 : position + 8 + length]
        position += 8 + length
    return bytes(output)


def _await_exit(engine: _Engine, container: str, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        state = json.loads(engine.ask("GET", f"/containers/{container}/json"))["State"]
        if state["Status"] in ("exited", "dead"):
            return int(state["ExitCode"])
        if time.monotonic() > deadline:
            return None
        time.sleep(_POLL_SECONDS)


class _Engine:
    """The engine's own API on its socket: two calls that builds need not are no reason to widen their protocol."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = UnixConnection(path, timeout=_TIMEOUT_SECONDS)

    def __enter__(self) -> _Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        payload = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnreachable(
                f"The Docker engine at unix://{self._path} does not answer ({error or type(error).__name__}).",
                hint="Start it, or set CAISSON_DOCKER_HOST to its socket.",
            ) from None
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise EngineRefused(f"The Docker engine refused {method} {path}: {_message(answer)}.")
        return answer


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode(errors="replace")
