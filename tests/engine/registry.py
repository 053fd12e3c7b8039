"""A real registry for push tests: Debian's docker-registry with htpasswd, where an engine's own loopback is.

Engines take a registry on 127.0.0.0/8 without TLS, but the newer engine has a network namespace of its own, and with
it a loopback of its own. So the registry runs there, and so does every question that a test asks it.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

from caisson.engine import RegistryAuth

_T = TypeVar("_T")
_LOOPBACK = "127.0.0.1"
_CLONE_NEWNET = 0x40000000
_MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
_START_SECONDS = 15


class EngineNetwork:
    """The network namespace of the process that listens on an engine's socket."""

    def __init__(self, engine_socket: Path) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(engine_socket))
            peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self._namespace = f"/proc/{struct.unpack('3i', peer)[0]}/ns/net"
        self._is_ours = Path(self._namespace).samefile("/proc/self/ns/net")

    def command(self, *argv: str) -> list[str]:
        """The command line that runs a program there."""
        return list(argv) if self._is_ours else ["nsenter", f"--net={self._namespace}", *argv]

    def call(self, function: Callable[[], _T]) -> _T:
        """What a function returns there; sockets that it makes stay there. It must not start threads."""
        if self._is_ours:
            return function()
        results: list[_T] = []
        failures: list[BaseException] = []

        def there() -> None:
            try:
                self._enter()
                results.append(function())
            except BaseException as error:  # handed on to the caller's thread
                failures.append(error)

        # A namespace is a thread's own: this one ends with the call.
        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def _enter(self) -> None:
        with Path(self._namespace).open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), self._namespace)

    def address(self) -> str:
        """One of its own addresses beyond loopback; nothing is sent to find it."""

        def probe() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(("192.0.2.1", 9))
                return str(client.getsockname()[0])

        return self.call(probe)

    def free_port(self) -> int:
        """A port of its loopback that nobody listens on."""

        def probe() -> int:
            with socket.socket() as unused:
                unused.bind((_LOOPBACK, 0))
                return int(unused.getsockname()[1])

        return self.call(probe)


@dataclass
class Registry:
    """A registry with one user, at ``address`` as the engine sees it; push anything below it."""

    directory: Path
    network: EngineNetwork
    address: str
    auth: RegistryAuth
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        """Start, or start again with all that was pushed; returns when it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.network.command("docker-registry", "serve", str(self.directory / "config.yml")),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.ask("GET", "/v2/")
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"docker-registry does not answer at {self.address}:\n{self.log[-2000:]}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers (names in lower case) and body of the registry's own answer; raises ``OSError``."""
        basic = base64.b64encode(f"{self.auth.username}:{self.auth.password}".encode()).decode()

        def request() -> tuple[int, Mapping[str, str], bytes]:
            host, _, port = self.address.rpartition(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            try:
                connection.request(method, path, headers={"Authorization": f"Basic {basic}", **(headers or {})})
                answer = connection.getresponse()
                return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            finally:
                connection.close()

        return self.network.call(request)

    def digest(self, repository: str, tag: str) -> str:
        """``Docker-Content-Digest`` of a tag, as the registry has it; empty where it has no such tag."""
        status, headers, _ = self.ask("HEAD", f"/v2/{repository}/manifests/{tag}", {"Accept": _MANIFESTS})
        return headers["docker-content-digest"] if status == 200 else ""

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository, sorted."""
        status, _, body = self.ask("GET", f"/v2/{repository}/tags/list")
        return sorted(json.loads(body)["tags"] or []) if status == 200 else []


@contextmanager
def docker_registry(
    directory: Path, engine_socket: Path, *, address: str = "", password: str = ""
) -> Iterator[Registry]:
    """Run docker-registry for an engine while the block runs; its data are below ``directory``.

    ``address`` (host without port) is another address of the engine's host than loopback, which wants TLS there.
    """
    if not shutil.which("docker-registry") or not shutil.which("htpasswd"):
        raise AssertionError("docker-registry or htpasswd is missing: apt-get install docker-registry apache2-utils")
    network = EngineNetwork(engine_socket)
    auth = RegistryAuth("alice", password or "correct horse battery staple", "")
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["htpasswd", "-i", "-B", "-C", "5", "-c", str(directory / "htpasswd"), auth.username],
        input=auth.password.encode(),
        check=True,
        capture_output=True,
    )
    where = f"{address or _LOOPBACK}:{network.free_port()}"
    config = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": where},
        "auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}},
    }
    # YAML takes JSON as it is.
    (directory / "config.yml").write_text(json.dumps(config))
    registry = Registry(directory, network, where, auth)
    try:
        registry.start()
        yield registry
    finally:
        registry.stop()
        # pytest keeps its temporary directories for a while.
        shutil.rmtree(directory / "data", ignore_errors=True)


@dataclass
class FaultyRegistry:
    """A registry that has every layer already and answers the manifest of each tag with a status of the test's choice.

    Engines try a failing layer five times, which takes 50 s, but a manifest only once.
    """

    address: str
    status: int
    body: bytes
    asked: list[str] = field(default_factory=list)


@contextmanager
def faulty_registry(engine_socket: Path, status: int, body: bytes = b"") -> Iterator[FaultyRegistry]:
    """Serve on the engine's loopback while the block runs."""
    network = EngineNetwork(engine_socket)
    port = network.free_port()
    faulty = FaultyRegistry(f"{_LOOPBACK}:{port}", status, body)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            faulty.asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/v2/":
                status, body = 200, b"{}"
            elif "/blobs/" in self.path:
                status, body = 200, b""
            elif self.command == "PUT":
                status, body = faulty.status, faulty.body
            else:
                status, body = 404, b""
            self.send_response(status)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = _answer

    server = ThreadingHTTPServer((_LOOPBACK, port), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = network.call(lambda: socket.create_server((_LOOPBACK, port)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield faulty
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
