"""What people build, through the guard and on the engine's own socket: the outcome is the same, on both builders.

buildx is the one of the builder image; ``CAISSON_TEST_BUILDX`` names more binaries, separated by colons.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from caisson.guard.policy import GuardPolicy
from caisson.reference import parse_reference
from caisson.unix_http import UnixConnection
from tests.conftest import EngineHost
from tests.engine.buildx import copy_buildx
from tests.engine.guarded import Guarded, guarded

BASE = "FROM debian:trixie-slim\n"
BUILDX = [path for path in os.environ.get("CAISSON_TEST_BUILDX", "").split(":") if path]


@dataclass
class Builder:
    """One builder, by its client, on one engine: guarded, or on the engine's own socket."""

    command: list[str]
    host: EngineHost
    guard: Guarded
    home: Path
    image: str
    context: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def is_buildkit(self) -> bool:
        return self.command[0] != "docker"

    @property
    def knows_heredocs(self) -> bool:
        return self.is_buildkit and not self.host.name.startswith("20.")

    def file(self, name: str, text: str) -> None:
        (self.context / name).parent.mkdir(parents=True, exist_ok=True)
        (self.context / name).write_text(text)

    def __call__(
        self,
        *options: str,
        raw: bool = False,
        source: str | None = None,
        stdin: bytes | None = None,
        plain: bool = True,
        cached: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Build the context; without ``raw`` through the guard."""
        tag = f"{self.image}-raw" if raw else self.image
        progress = ["--progress=plain"] if self.is_buildkit and plain else []
        fresh = [] if cached else ["--no-cache"]
        command = [*self.command, *fresh, *progress, "--tag", tag, *options, source or str(self.context)]
        done = subprocess.run(command, env=self._env(raw=raw), input=stdin, capture_output=True, timeout=280)
        return subprocess.CompletedProcess(
            command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def both(self, *options: str, **more: Any) -> tuple[int, str]:
        """Build on both sockets: the exit code, which has to be the same, and what the guarded build printed.

        Where there are images, they have as many layers and the same configuration.
        """
        raw, own = self(*options, raw=True, **more), self(*options, **more)
        printed = own.stdout + own.stderr
        assert own.returncode == raw.returncode, f"{raw.stdout + raw.stderr}\nGUARDED: {printed}"
        if own.returncode == 0:
            assert self.described() == self.described(raw=True)
        return own.returncode, printed

    def described(self, *, raw: bool = False) -> tuple[int, dict[str, Any]]:
        """How many layers the image has, and its configuration but for what the guard labels it with."""
        document = self.inspect(raw=raw)
        config = {key: value for key, value in document["Config"].items() if key not in ("Labels", "Image", "Hostname")}
        return len(document["RootFS"]["Layers"] or []), config

    def inspect(self, *, raw: bool = False) -> dict[str, Any]:
        tag = f"{self.image}-raw" if raw else self.image
        shown = subprocess.run(
            ["docker", "--host", self.host.docker_host, "inspect", tag], capture_output=True, text=True
        )
        assert shown.returncode == 0, shown.stderr
        document: dict[str, Any] = json.loads(shown.stdout)[0]
        return document

    def remove(self) -> None:
        for tag in (self.image, f"{self.image}-raw"):
            subprocess.run(["docker", "--host", self.host.docker_host, "rmi", "-f", tag], capture_output=True)

    def forget_contexts(self) -> None:
        """BuildKit keeps every context that it was sent, to be sent only what differs the next time."""
        prune = ["builder", "prune", "--force", "--filter", "type=source.local"]
        subprocess.run(["docker", "--host", self.host.docker_host, *prune], capture_output=True, check=True)

    def _env(self, *, raw: bool) -> dict[str, str]:
        own = {"DOCKER_HOST": self.host.docker_host if raw else self.guard.host, "HOME": str(self.home)}
        return {**own, "PATH": os.environ["PATH"], "DOCKER_BUILDKIT": "0", **self.env}


@pytest.fixture(scope="session")
def buildx(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(copy_buildx(tmp_path_factory.mktemp("buildx") / "docker-buildx"))


@pytest.fixture
def in_turn(engine_host: EngineHost, tmp_path: Path) -> Iterator[Builder]:
    image = f"caisson-guarded/builds:{uuid.uuid4().hex[:8]}"
    policy = GuardPolicy(image=parse_reference(image), cache_mount_namespace=image)
    context, home = tmp_path / "context", tmp_path / "home"
    context.mkdir()
    home.mkdir()
    with guarded(tmp_path, engine_host.socket, policy) as guard:
        found = Builder([], engine_host, guard, home, image, context)
        yield found
        found.remove()


@pytest.fixture(params=["classic", "builder image's buildx", *BUILDX])
def builder(request: pytest.FixtureRequest, in_turn: Builder, buildx: str) -> Builder:
    """Each builder."""
    program = buildx if request.param == "builder image's buildx" else request.param
    in_turn.command = ["docker", "build"] if program == "classic" else [program, "build", "--provenance=false"]
    return in_turn


@pytest.fixture(params=["builder image's buildx", *BUILDX])
def buildkit(request: pytest.FixtureRequest, in_turn: Builder, buildx: str) -> Builder:
    """Each client of BuildKit."""
    program = buildx if request.param == "builder image's buildx" else request.param
    in_turn.command = [program, "build", "--provenance=false"]
    return in_turn


def test_one_of_several_stages(builder: Builder) -> None:
    builder.file("Dockerfile", f"{BASE}AS one\n".replace("\nAS", " AS") + 'RUN echo one > /one\nCMD ["one"]\n' + BASE
                 + 'COPY --from=one /one /two\nCMD ["two"]\n')  # fmt: skip
    assert builder.both("--target", "one")[0] == 0
    assert builder.described()[1]["Cmd"] == ["one"]
    assert builder.both()[0] == 0
    assert builder.described()[1]["Cmd"] == ["two"]


def test_heredocs(builder: Builder) -> None:
    builder.file("Dockerfile", BASE + "RUN <<EOF\necho from-a-heredoc\nEOF\nCOPY <<'EOF' /file\ntext $HOME\nEOF\n"
                 "RUN cat /file\n")  # fmt: skip
    code, printed = builder.both()
    assert (code == 0) == builder.knows_heredocs
    if builder.knows_heredocs:
        assert "from-a-heredoc" in printed
        assert "text $HOME" in printed


def test_cache_mounts_last_from_build_to_build_and_are_the_builds_own(buildkit: Builder) -> None:
    place, found = uuid.uuid4().hex, []
    for turn, raw in enumerate((True, False, False, True)):
        # By another step and not by --no-cache, which would empty the mount.
        step = f": {place} {turn}; echo x >> /cache/n; echo lines=$(wc -l < /cache/n)"
        buildkit.file("Dockerfile", f"{BASE}RUN --mount=type=cache,target=/cache,id={place} {step}\n")
        built = buildkit(raw=raw, cached=True)
        assert built.returncode == 0, built.stderr
        found += re.findall(r"lines=([0-9]+)$", built.stderr, re.MULTILINE)
    assert found == ["1", "1", "2", "2"]


def test_secrets(buildkit: Builder) -> None:
    buildkit.env["TOKEN"] = "s3cret"
    buildkit.file("Dockerfile", BASE + "RUN --mount=type=secret,id=token sha256sum < /run/secrets/token\n")
    code, printed = buildkit.both("--secret=id=token,env=TOKEN")
    assert code == 0
    assert hashlib.sha256(b"s3cret").hexdigest() in printed


def test_an_ssh_agent_is_reached(buildkit: Builder, tmp_path: Path) -> None:
    agent, key = tmp_path / "agent.sock", tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "caisson-test-key", "-f", str(key)], check=True
    )
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        while not agent.exists():
            assert process.poll() is None
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(agent)})
        # SSH_AGENTC_REQUEST_IDENTITIES, for the base image has no ssh-add.
        script = (
            "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ENV{SSH_AUTH_SOCK}) or die; "
            "syswrite $s, pack('NC', 1, 11); my $a = ''; "
            "while (length $a < 4 || length $a < 4 + unpack 'N', $a) { sysread $s, $a, 4096, length $a or last } "
            "print 'key: ', $a =~ /(caisson-test-key)/;"
        )
        buildkit.file("Dockerfile", BASE + f'RUN --mount=type=ssh perl -e "{script.replace("$", chr(92) + "$")}"\n')
        code, printed = buildkit.both("--ssh", f"default={agent}")
    finally:
        process.terminate()
        process.wait(timeout=10)
    assert code == 0, printed
    assert re.search(r"^#?.*key: caisson-test-key", printed, re.MULTILINE), printed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_context_of_two_gigabytes_arrives_whole(builder: Builder) -> None:
    digest = hashlib.sha256()
    with (builder.context / "big").open("wb") as big:
        for _ in range(16):
            block = os.urandom(1 << 20) + bytes(127 << 20)
            big.write(block)
            digest.update(block)
    mounted = "RUN --mount=type=bind,target=/context sha256sum /context/big\n"
    builder.file("Dockerfile", BASE + (mounted if builder.is_buildkit else "COPY big /\nRUN sha256sum /big\n"))
    try:
        built = builder()
        assert built.returncode == 0, built.stderr
        assert digest.hexdigest() in built.stdout + built.stderr
    finally:
        (builder.context / "big").unlink()
        builder.forget_contexts()


def test_as_many_layers_as_the_engine_takes(builder: Builder) -> None:
    builder.file("file", "text")
    builder.file("Dockerfile", "FROM scratch\n" + "".join(f"COPY file /{number}\n" for number in range(120)))
    assert builder.both(cached=True)[0] == 0
    assert builder.described()[0] == 120
    builder.file("Dockerfile", "FROM scratch\n" + "".join(f"COPY file /{number}\n" for number in range(200)))
    code, printed = builder.both(cached=True)
    # overlay2 takes 125 or so, and says it only then.
    assert code != 0
    assert "max depth exceeded" in printed


def documents(text: str) -> list[object]:
    """The JSON documents in it, one after the other; raises ``ValueError`` for anything else."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_what_is_printed(builder: Builder) -> None:
    builder.file("Dockerfile", BASE + "RUN echo seen-it\n")
    code, printed = builder.both("--quiet", plain=False)
    assert code == 0
    assert printed.split()[0] == builder.inspect()["Id"]
    if not builder.is_buildkit:
        assert "seen-it" in builder.both()[1]
        return
    assert "seen-it" in builder.both("--progress=plain", plain=False)[1]
    code, printed = builder.both("--progress=rawjson", plain=False)
    assert code == 0
    assert documents(printed)
    assert all(isinstance(document, dict) for document in documents(printed))
    tag = ["--tag", builder.image, "--progress=tty", str(builder.context)]
    env = builder._env(raw=False)
    typed = subprocess.run(
        ["script", "-qec", " ".join([*builder.command, "--no-cache", *tag]), "/dev/null"],
        env=env, capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert typed.returncode == 0, typed.stdout
    assert b"\x1b[" in typed.stdout
    # Not its last word, FINISHED: buildx leaves that out where it stops listening before the last status.
    assert b"naming to" in typed.stdout


def test_a_git_url_as_the_context_is_refused_with_a_sentence(builder: Builder) -> None:
    url = "https://git.invalid/repository.git"
    if builder.is_buildkit:
        refused = builder(source=url)
        assert refused.returncode != 0
        text = refused.stderr
    else:
        # The classic client clones by itself; only another client asks the engine to.
        connection = UnixConnection(builder.guard.socket, timeout=10)
        connection.request("POST", f"/build?t={builder.image}&remote={url}")
        answer = connection.getresponse()
        assert answer.status == 403
        text = answer.read().decode()
        connection.close()
    assert "A build from a URL is fetched by the engine, from its own network; send the context." in text
    assert builder.guard.refused()


def test_a_dockerfile_outside_the_context(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "Elsewhere").write_text(BASE + "COPY file /\nRUN echo from-elsewhere\n")
    builder.file("file", "text")
    builder.file("Dockerfile", "FROM never.invalid/used\n")
    code, printed = builder.both("--file", str(tmp_path / "Elsewhere"))
    assert code == 0, printed
    assert "from-elsewhere" in printed


def test_a_dockerfile_from_standard_input(builder: Builder) -> None:
    builder.file("file", "text")
    code, printed = builder.both("--file", "-", stdin=(BASE + "COPY file /\nRUN echo from-stdin\n").encode())
    assert code == 0, printed
    assert "from-stdin" in printed
    # Without a context at all.
    code, printed = builder.both(source="-", stdin=(BASE + "RUN echo alone\n").encode())
    assert code == 0, printed
    assert "alone" in printed


@pytest.mark.parametrize("ignore_file", [".dockerignore", "Dockerfile.dockerignore"])
def test_what_is_ignored_stays_out(builder: Builder, ignore_file: str) -> None:
    builder.file("kept", "")
    builder.file("left/out", "")
    builder.file(ignore_file, "left\n*.md\n!README.md\n")
    builder.file("a.md", "")
    builder.file("README.md", "")
    builder.file(
        "Dockerfile", BASE + "COPY . /context\nRUN echo found: $(cd /context && ls -A | sort | tr '\\n' ' ')\n"
    )
    code, printed = builder.both()
    assert code == 0, printed
    found = re.findall(r"^(?:#?\S+ [0-9.]+ )?found: (.*)$", printed, re.MULTILINE)[-1].split()
    expected = {".dockerignore", "Dockerfile.dockerignore"} & {ignore_file} | {"Dockerfile", "kept", "README.md"}
    # The classic builder knows only the first.
    if not builder.is_buildkit and ignore_file != ".dockerignore":
        expected |= {"left", "a.md"}
    assert set(found) == expected
