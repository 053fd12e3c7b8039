"""A guarded socket is for one container: who else reaches its file gets nothing from it."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from caisson.guard.audit import Audit, Entry
from caisson.guard.listening import remove_dead_sockets
from caisson.guard.policy import GuardPolicy
from caisson.guard.server import Guard
from caisson.reference import parse_reference
from tests.conftest import EngineHost
from tests.engine.attacks.lab import speak

PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
BUILDER = "caisson-builder:latest"
# A child that has the connection while the one that connected is gone.
_ORPHAN = """
use IO::Socket::UNIX;
my $s = IO::Socket::UNIX->new(Peer => "/var/run/docker.sock") or die;
if (fork()) { exit 0 }
sleep 1;
print $s "GET /_ping HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\n\\r\\n";
print <$s>;
"""


@dataclass
class Engine:
    """A guard on one engine, with its socket where the engine's containers can have it."""

    host: EngineHost
    guard: Guard
    inside: str
    """The socket as the engine sees it."""
    entries: list[Entry]
    name: str

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["docker", "--host", self.host.docker_host, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=check)

    def start(self, *options: str) -> str:
        """A container that has the socket; its ID."""
        own = ["--label", f"attack={self.name}", "--entrypoint", "sleep", "--user", "0"]
        mount = ["--volume", f"{self.inside}:/var/run/docker.sock"]
        return self.docker("run", "--detach", *own, *mount, *options, BUILDER, "600").stdout.strip()

    def ask(self, container: str, *options: str) -> subprocess.CompletedProcess[str]:
        """The docker client in that container asks the socket for its version."""
        client = ["docker", "--host", "unix:///var/run/docker.sock", "version", "--format", "{{.Server.Platform.Name}}"]
        return self.docker("exec", *options, container, *client, check=False)

    def denied(self) -> list[str]:
        return [entry.verdict.reason for entry in self.entries if entry.verdict.rule == "peer"]


@pytest.fixture
def engine(engine_host: EngineHost) -> Iterator[Engine]:
    name = f"attack-{uuid.uuid4().hex[:8]}"
    directory = engine_host.root / "run" / name
    entries: list[Entry] = []
    policy = GuardPolicy(image=parse_reference(f"caisson-attack/{name}:build"), build_id="peer")
    guard = Guard(
        policy,
        engine_socket=engine_host.socket,
        directory=directory,
        audit=Audit(echo=entries.append),
        check_dockerfile=lambda *_: None,
    )
    with guard:
        engine = Engine(engine_host, guard, f"/run/{name}/peer.sock", entries, name)
        try:
            yield engine
        finally:
            found = engine.docker("ps", "--all", "--quiet", "--filter", f"label=attack={name}").stdout.split()
            if found:
                engine.docker("rm", "--force", *found)
    shutil.rmtree(directory)


def test_who_only_looks_whether_it_listens_is_no_denial(engine: Engine) -> None:
    remove_dead_sockets(engine.guard.socket_path.parent)
    assert engine.guard.socket_path.exists()
    assert speak(engine.guard.socket_path, PING).status == 403
    assert len(engine.denied()) == len(engine.entries) == 1


def test_until_its_container_is_known_nobody_is_served(engine: Engine) -> None:
    asked = engine.ask(engine.start())
    assert asked.returncode != 0
    assert "not known yet" in asked.stderr
    assert speak(engine.guard.socket_path, PING).status == 403
    assert len(engine.denied()) >= 2


def test_its_container_is_served_and_no_other_and_not_the_host(engine: Engine) -> None:
    own = engine.start()
    other = engine.start()
    engine.guard.serve_only(own)
    served = engine.ask(own)
    assert served.stdout.strip() == "caisson guard", served.stderr
    # The file is the owner's alone here.
    assert "permission denied" in engine.ask(own, "--user", "12345").stderr
    refused = engine.ask(other)
    assert refused.returncode != 0
    assert "for another container" in refused.stderr
    host = speak(engine.guard.socket_path, PING)
    assert host.status == 403
    assert b"in no container" in host.data
    assert len(engine.denied()) >= 2


def test_a_process_in_a_group_below_the_containers_is_not_it(engine: Engine) -> None:
    """RUN steps are in such a group, and so is what they start."""
    own = engine.start()
    engine.guard.serve_only(own)
    below = engine.start("--cgroup-parent", f"/docker/{own}")
    assert f"/docker/{own}/{below}" in engine.docker("exec", below, "cat", "/proc/1/cgroup").stdout
    refused = engine.ask(below)
    assert refused.returncode != 0
    assert "for another container" in refused.stderr


def test_a_container_that_shares_all_namespaces_is_still_another(engine: Engine) -> None:
    own = engine.start("--ipc=shareable")
    engine.guard.serve_only(own)
    shared = [f"--{kind}=container:{own}" for kind in ("network", "pid", "ipc")]
    refused = engine.ask(engine.start(*shared))
    assert "for another container" in refused.stderr


def test_a_connection_whose_process_is_gone_is_nobodys(engine: Engine) -> None:
    own = engine.start()
    other = engine.start()
    engine.guard.serve_only(own)
    orphaned = engine.docker("exec", other, "perl", "-e", _ORPHAN, check=False)
    assert "200 OK" not in orphaned.stdout
    assert engine.denied()


def test_a_second_container_can_not_be_named(engine: Engine) -> None:
    own, other = engine.start(), engine.start()
    engine.guard.serve_only(own)
    engine.guard.serve_only(own, cgroup_parent=f"/docker/{own}")
    for wrong in (other, own[:12], "", own.upper()):
        with pytest.raises(ValueError, match="whole ID of the one container"):
            engine.guard.serve_only(wrong)
    assert engine.ask(own).stdout.strip() == "caisson guard"
    assert engine.ask(other).returncode != 0


def test_a_container_that_has_ended_leaves_its_socket_to_nobody(engine: Engine) -> None:
    own = engine.start()
    engine.guard.serve_only(own)
    engine.docker("rm", "--force", own)
    assert "for another container" in engine.ask(engine.start()).stderr
    assert speak(engine.guard.socket_path, PING).status == 403
