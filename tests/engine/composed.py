"""deployments/compose.yaml as a user has it: a checkout, settings, images, and docker's own compose on an engine for it
alone, in whose network namespace the published ports are.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import SETUP, EngineHost
from tests.engine.network import EngineNetwork

SERVICES = ("database", "server", "worker")
HOST_NAME = "b1"
API, PREFECT = 4280, 4200
ROOT = Path(__file__).parents[2]
POSTGRES_IMAGE = Path(__file__).with_name("postgres_image")
COMMAND_SECONDS = 280
_GUARD_DIR = "run/caisson"
_USER = 10000
# What Debian's machines trust besides Debian's own: here, the proxy's before the package registries.
_OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_NOT_OF_THE_CHECKOUT = (".git", ".venv", ".state", "__pycache__", ".*_cache", ".hypothesis", "tests", "build", ".env")


@dataclass(frozen=True)
class Composed:
    """The directory ``deployments`` of a checkout, and the engine that its compose file is for."""

    directory: Path
    engine: EngineHost
    network: EngineNetwork
    config: Path
    """``DOCKER_CONFIG``: where the docker CLI finds its compose."""
    api_auth: str

    def run(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
        """``docker`` with those arguments, in that directory."""
        # What compose needs is in .env, and nowhere else.
        own = {"DOCKER_HOST": self.engine.docker_host, "DOCKER_CONFIG": str(self.config), "DOCKER_BUILDKIT": "0"}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(
            ["docker", *arguments],
            cwd=self.directory,
            env={**inherited, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def docker(self, *arguments: str) -> str:
        """What it prints; it has to succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def compose(self, *arguments: str) -> str:
        """What ``docker compose`` prints; where it fails, what the services have said is told too."""
        done = self.run("compose", *arguments)
        told = "" if done.returncode == 0 else self.run("compose", "logs", "--tail=40").stdout
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stdout}\n{done.stderr}\n{told}"
        return done.stdout

    def up(self) -> None:
        self.compose("up", "--detach", "--wait", "--wait-timeout", "240")

    def caisson(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``caisson`` in the worker."""
        return self.run("compose", "exec", "--no-TTY", "worker", "caisson", *arguments)

    def states(self) -> dict[str, dict[str, Any]]:
        """What the engine tells of each service's container."""
        containers = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(self.docker("inspect", *containers)) if containers else []
        return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in found}

    def ends_since(self, moment: float) -> list[tuple[str, str]]:
        """Service and exit code of each container of a service that has ended since then, at the latest just now."""
        # In whole seconds: the engine answers when the last of them is over.
        window = (f"--since={moment}", f"--until={int(time.time()) + 1}")
        form = '{{index .Actor.Attributes "com.docker.compose.service"}} {{.Actor.Attributes.exitCode}}'
        wanted = ("--filter=event=die", "--filter=label=com.docker.compose.oneoff=False", f"--format={form}")
        ends = [line.split(" ") for line in self.docker("events", *window, *wanted).splitlines()]
        return [(name, code) for name, code in ends]

    def ask(self, port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer on the loopback of the engine's network; raises ``OSError`` without one."""

        def ask() -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                sent = json.dumps(body) if body is not None else None
                connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read() or "null")
            except http.client.HTTPException as error:
                raise OSError(f"{path}: {error!r}") from error
            finally:
                connection.close()

        return self.network.call(ask)


def find_compose() -> Path:
    """docker's compose: from ``CAISSON_TEST_COMPOSE``, else where the set-up script puts it."""
    text = os.environ.get("CAISSON_TEST_COMPOSE", "")
    if not text:
        command = [str(SETUP / "test-tools.sh"), "--compose"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert text, "There is no docker compose for tests. Fetch it: deployments/setup/test-tools.sh"
    return Path(text)


@contextmanager
def composed(root: Path, engine: EngineHost) -> Iterator[Composed]:
    """The checkout in ``root``, ready for the first ``up``; at the end all that came of it is gone but the images."""
    checkout, config = root / "checkout", root / "docker"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*_NOT_OF_THE_CHECKOUT))
    # Whose umask is 077 has such a checkout.
    subprocess.run(["chmod", "-R", "go=", str(checkout)], check=True)
    (config / "cli-plugins").mkdir(parents=True)
    (config / "cli-plugins" / "docker-compose").symlink_to(find_compose())
    network = EngineNetwork.of_engine(engine.socket)
    ours = Composed(checkout / "deployments", engine, network, config, "builder:w0rds")
    _write_settings(ours)
    guard_dir = engine.root / _GUARD_DIR
    guard_dir.mkdir(mode=0o700, exist_ok=True)
    os.chown(guard_dir, _USER, _USER)
    # Of a run that was killed.
    ours.compose("down", "--volumes", "--timeout=1")
    try:
        yield ours
    finally:
        ours.compose("down", "--volumes", "--timeout=10")
        ours.docker("image", "prune", "--force")
        assert not list(guard_dir.glob("*.sock"))
        shutil.rmtree(guard_dir)


def make_images(ours: Composed) -> None:
    """As the head of compose.yaml has it; and a PostgreSQL, which would else be pulled."""
    certificates = "".join(file.read_text() for file in sorted(_OWN_CERTIFICATES.rglob("*.crt")))
    build = ("build", "--file", "image/Dockerfile", "--tag", "caisson:latest")
    ours.docker(*build, "--build-arg", f"CA_CERTIFICATES={certificates}", "..")
    ours.docker("build", "--tag", "postgres:17", str(POSTGRES_IMAGE))


def _write_settings(ours: Composed) -> None:
    values = {
        "POSTGRES_PASSWORD": "w0rdsOfPostgres",
        "CAISSON_API_AUTH": ours.api_auth,
        "CAISSON_HOST_NAME": HOST_NAME,
        "DOCKER_GID": str(ours.engine.socket.stat().st_gid),
    }
    example = (ours.directory / "compose.env.example").read_text()
    lines = (f"{line}{values[line[:-1]]}" if line.endswith("=") else line for line in example.splitlines())
    settings = ours.directory / ".env"
    settings.write_text("\n".join(lines))
    settings.chmod(0o600)
