"""Where attacks are tried: an engine, a guard before it, what the guard sends on, and victims that are ours alone."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from caisson.guard.audit import Audit, Entry
from caisson.guard.dockerfile_check import dockerfile_check, steps_check
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_names import Names
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard.engine_facts import ask_engine
from caisson.guard.policy import GuardLimits, GuardPolicy
from caisson.guard.server import Guard
from caisson.reference import parse_reference
from caisson.unix_http import UnixConnection
from tests.conftest import EngineHost

BASE = "debian:trixie-slim"
RESERVED = "reserved.invalid"
"""The registry of images that no build may read; not Caisson's own name for it, since other tests look for that."""
_FORCE = {"containers": "?force=1&v=1", "images": "?force=1", "volumes": "?force=1"}
_MARK = re.compile(rb"<([a-z-]+)>")


@dataclass(frozen=True)
class Answer:
    """All that came back, until the end of the connection or of the patience."""

    data: bytes
    closed: bool
    seconds: float = 0.0

    @property
    def status(self) -> int:
        """Of the first answer; 0 where there is none."""
        match = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", self.data.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
        return int(match[1]) if match else 0


def speak(path: Path, data: bytes, *, then: bytes = b"", waits: float = 10.0) -> Answer:
    """Send bytes to a socket, and take what comes back until its end or until nothing came for ``waits`` seconds."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(waits)
        connection.connect(str(path))
        begun = time.monotonic()
        received, closed = [], False
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            if then:
                time.sleep(0.2)
                connection.sendall(then)
        with contextlib.suppress(TimeoutError):
            try:
                while part := connection.recv(1 << 16):
                    received.append(part)
                closed = True
            except ConnectionResetError:
                closed = True
        return Answer(b"".join(received), closed, time.monotonic() - begun)


class Server:
    """Listens where the engine's requests would arrive, counts them, and answers 404 to what is HTTP."""

    def __init__(self, address: str) -> None:
        self._listener = socket.create_server((address, 0))
        self.address = f"{address}:{self._listener.getsockname()[1]}"
        self.hits = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.hits += 1
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        self._listener.close()


class Recorder:
    """Between guard and engine: passes everything on, and keeps what the guard sent, by connection."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.path, self._engine = path, engine
        self.sent: list[bytearray] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                guard, _ = self._listener.accept()
            except OSError:
                return
            kept = bytearray()
            self.sent.append(kept)
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(str(self._engine))
            for source, target, record in ((guard, engine, kept), (engine, guard, None)):
                threading.Thread(target=_copy, args=(source, target, record), daemon=True).start()

    def close(self) -> None:
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if record is not None:
                record += data
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    if record is not None:
        source.close()
    # The other way's thread closes the engine's side.
    else:
        source.close()


@dataclass
class Lab:
    """One engine with its guard. Everything that it makes has ``name`` in its own name, and is removed by ``sweep``."""

    host: EngineHost
    name: str
    guard: Guard
    recorder: Recorder
    server: Server
    entries: list[Entry]
    policy: GuardPolicy
    cases: int = 0
    shared: dict[str, str] = field(default_factory=dict)

    def case(self) -> Case:
        """A case with names of its own."""
        self.cases += 1
        return Case(self, f"{self.name}-{self.cases}")

    def engine(self, method: str, path: str, document: object = None, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask the engine itself."""
        connection = UnixConnection(self.host.socket, timeout=60)
        headers = {"Content-Type": "application/json" if document is not None else "application/x-tar"}
        data = json.dumps(document).encode() if document is not None else body
        try:
            connection.request(method, path, body=data, headers=headers if data is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def make(self, path: str, document: object) -> dict[str, Any]:
        """Create something on the engine itself; raises ``AssertionError``."""
        status, body = self.engine("POST", path, document)
        assert status in (200, 201, 204), (path, status, body)
        return dict(json.loads(body)) if body.strip() else {}

    def make_image(self, name: str, dockerfile: str = "FROM scratch\nCOPY Dockerfile /\n") -> None:
        """Build an image on the engine itself."""
        files = tar({"Dockerfile": f"{dockerfile}LABEL made.for={name} caisson.attack={self.name}\n"})
        status, body = self.engine("POST", f"/build?t={name}&rm=1&forcerm=1", body=files)
        assert status == 200 and b"errorDetail" not in body, body  # noqa: PT018

    def make_container(self, name: str, *, start: bool = True) -> None:
        self.make(
            f"/containers/create?name={name}",
            {
                "Image": BASE,
                "Cmd": ["sleep", "600"],
                "Env": ["TOKEN=s3cret"],
                "Labels": {"attack": name},
                "HostConfig": {"Init": True},
                "StopTimeout": 1,
            },
        )
        if start:
            self.make(f"/containers/{name}/start", None)

    def names(self) -> set[tuple[str, str]]:
        """All objects of ours that are on the engine now: kind and name."""
        found: set[tuple[str, str]] = set()
        for kind, path, key in (
            ("containers", "/containers/json?all=1", "Names"),
            ("images", "/images/json", "RepoTags"),
            ("networks", "/networks", "Name"),
            ("volumes", "/volumes", "Name"),
        ):
            document = json.loads(self.engine("GET", path)[1])
            for row in (document["Volumes"] or []) if kind == "volumes" else document:
                value = row[key]
                for name in value if isinstance(value, list) else [value]:
                    if self.name in (name or ""):
                        found.add((kind, name.removeprefix("/")))
        return found

    def sweep(self) -> None:
        """Remove all that is ours: by name, and what has lost its name by its label."""
        for kind in ("containers", "images", "networks", "volumes"):
            for found, name in self.names():
                if found == kind:
                    self.engine("DELETE", f"/{kind}/{name}{_FORCE.get(kind, '')}")
        label = quote(json.dumps({"label": [f"caisson.attack={self.name}"]}))
        for image in json.loads(self.engine("GET", f"/images/json?filters={label}")[1]):
            self.engine("DELETE", f"/images/{image['Id']}?force=1")


@dataclass
class Case:
    """One case: its names, and victims that are made when it first names them."""

    lab: Lab
    fresh: str
    made: dict[str, str] = field(default_factory=dict)
    hits: int = 0

    def fill(self, text: bytes) -> bytes:
        """Put names in the place of marks."""
        return _MARK.sub(lambda match: self._value(match[1].decode()).encode(), text)

    def fill_text(self, text: str) -> str:
        """Likewise."""
        return self.fill(text.encode()).decode()

    def _value(self, mark: str) -> str:
        lab = self.lab
        fixed = {
            "fresh": self.fresh,
            # As a session's ID has to be.
            "session": f"{self.fresh.replace('-', '')}session",
            "fresh-image": f"caisson-attack/{self.fresh}:x",
            "own": str(lab.policy.image),
            "server": lab.server.address,
            "server-host": lab.server.address.partition(":")[0],
            "server-port": lab.server.address.partition(":")[2],
            "lab": lab.name,
        }
        if mark in fixed:
            return fixed[mark]
        # Victims that all cases share, and those that one case may destroy.
        known = (
            lab.shared
            if mark in ("victim", "image", "volume", "network", "exec", "own-id", "reserved", "image-id", "image-hex")
            else self.made
        )
        if mark not in known:
            known[mark] = self._make(mark)
        return known[mark]

    def _make(self, mark: str) -> str:
        lab, kind = self.lab, mark.removeprefix("doomed-")
        name = f"{lab.name}-{mark}" if kind == mark else f"{self.fresh}-{kind}"
        if kind in ("victim", "container"):
            lab.make_container(name)
        elif kind == "stopped":
            lab.make_container(name, start=False)
        elif kind == "image":
            name = f"caisson-attack/{name}:x"
            lab.make_image(name)
        elif kind == "reserved":
            name = f"{RESERVED}/{name}:x"
            lab.make_image(name)
        elif kind == "volume":
            lab.make("/volumes/create", {"Name": name, "Labels": {"attack": name}})
        elif kind == "network":
            lab.make("/networks/create", {"Name": name, "Internal": True, "Labels": {"attack": name}})
        elif kind == "exec":
            started = lab.make(f"/containers/{self._value('victim')}/exec", {"Cmd": ["true"], "AttachStdout": True})
            return str(started["Id"])
        elif kind in ("image-id", "image-hex"):
            found = str(json.loads(lab.engine("GET", f"/images/{self._value('image')}/json")[1])["Id"])
            return found if kind == "image-id" else found.partition(":")[2][:12]
        elif kind == "own-id":
            return str(json.loads(lab.engine("GET", f"/images/{lab.policy.image}/json")[1])["Id"])
        else:
            raise ValueError(f"no such mark: {mark}")
        return name

    def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """The engine's own document of an object; None where there is none."""
        path = self.fill_text(f"/{kind}/{name}{'/json' if kind in ('containers', 'images') else ''}")
        status, body = self.lab.engine("GET", path)
        return dict(json.loads(body)) if status == 200 else None

    def was_fetched(self) -> bool:
        """Whether the engine has connected to the server since the phase began; it may take a moment."""
        deadline = time.monotonic() + 0.3
        while self.lab.server.hits == self.hits and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.lab.server.hits > self.hits


def tar(files: dict[str, str]) -> bytes:
    """A plain tar of plain files."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return written.getvalue()


@contextlib.contextmanager
def open_lab(host: EngineHost, directory: Path) -> Iterator[Lab]:
    """A lab on that engine; at the end, all that is ours is gone from it."""
    name = f"attack-{uuid.uuid4().hex[:8]}"
    policy = GuardPolicy(
        image=parse_reference(f"caisson-attack/{name}-own:build"),
        build_id=name,
        labels=(("caisson.attacked", name),),
        memory=256 << 20,
        limits=GuardLimits(header_seconds=1),
    )
    facts, _ = ask_engine(host.socket)
    entries: list[Entry] = []
    recorder, server = Recorder(directory / "engine.sock", host.socket), Server(host.gateway)
    dockerfiles = DockerfilePolicy(
        Dialect.of_engine(facts.version),
        RESERVED,
        foreign_repositories=frozenset({parse_reference(f"caisson-attack/{name}-image").repository}),
    )
    names = Names()
    guard = Guard(
        policy,
        engine_socket=recorder.path,
        directory=directory / "guard",
        audit=Audit(echo=entries.append),
        check_dockerfile=dockerfile_check(dockerfiles, names),
        check_steps=steps_check(dockerfiles, names),
        serve_anyone=True,
    )
    lab = Lab(host, name, guard, recorder, server, entries, policy)
    try:
        with guard:
            lab.make_image(str(policy.image))
            lab.make(f"/images/{policy.image}/tag?repo=caisson-attack/{name}-second&tag=x", None)
            yield lab
    finally:
        lab.sweep()
        recorder.close()
        server.close()
