"""A real registry for push tests: Debian's docker-registry with htpasswd, where an engine's own loopback is.

Engines take a registry on 127.0.0.0/8 without TLS, but the newer engine has a network namespace of its own, and with
it a loopback of its own. So the registry runs there, and so does every question that a test asks it.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from caisson.engine import RegistryAuth
from tests.engine.network import LOOPBACK, EngineNetwork

_MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
_START_SECONDS = 15


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
    directory: Path,
    engine_socket: Path,
    *,
    address: str = "",
    password: str = "",
    is_open: bool = False,
    network: EngineNetwork | None = None,
) -> Iterator[Registry]:
    """Run docker-registry for an engine while the block runs; its data are below ``directory``.

    ``address`` (host without port) is another address of the engine's host than loopback, which wants TLS there; one
    that ``is_open`` asks nobody for a password; ``network`` is the engine's where that may be killed.
    """
    if not shutil.which("docker-registry") or not shutil.which("htpasswd"):
        raise AssertionError("docker-registry or htpasswd is missing: apt-get install docker-registry apache2-utils")
    network = network or EngineNetwork.of_engine(engine_socket)
    auth = RegistryAuth("alice", password or "correct horse battery staple", "")
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["htpasswd", "-i", "-B", "-C", "5", "-c", str(directory / "htpasswd"), auth.username],
        input=auth.password.encode(),
        check=True,
        capture_output=True,
    )
    where = f"{address or LOOPBACK}:{network.free_port()}"
    config = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": where},
        **({} if is_open else {"auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}}),
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
    network = EngineNetwork.of_engine(engine_socket)
    port = network.free_port()
    faulty = FaultyRegistry(f"{LOOPBACK}:{port}", status, body)

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

    server = ThreadingHTTPServer((LOOPBACK, port), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = network.call(lambda: socket.create_server((LOOPBACK, port)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield faulty
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_registry(network: EngineNetwork) -> Iterator[tuple[str, threading.Event]]:
    """One on the engine's loopback that takes connections and says nothing; its address, and whether it has one."""
    with network.call(lambda: socket.create_server((LOOPBACK, 0))) as listener:
        held: list[socket.socket] = []
        asked = threading.Event()

        def accept() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return
                asked.set()

        threading.Thread(target=accept, daemon=True).start()
        yield f"{LOOPBACK}:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()
