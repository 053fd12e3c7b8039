"""Secrets planted at every door of one real build over the API, then looked for everywhere: a canary sings nowhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from caisson.docker_engine import DockerEngine
from caisson.errors import RequestInvalid
from tests.conftest import EngineHost, find_engines
from tests.engine.git_servers import GitHttp, git_http
from tests.flows.build_host import BASE, BuildHost, build_host, newer_engine
from tests.flows.caisson_host import CaissonHost, wait_for

CAISSON = str(Path(sys.executable).with_name("caisson"))
CANARIES = {
    "git token": "glpat-CANARY/11f3a9c51e2+d84b",
    "secret from a variable": "npm-CANARY/22c0ffee1234+0aa1",
    "secret from a block": "blk-CANARY/33deadbeef55+77b2",
    "registry's password": "reg-CANARY/44abad1dea99+12c3",
    "password in a URL": "url-CANARY55facade1234",
    "token in a query": "qry-CANARY66decade1234",
    "token for the name of one": "ghp_CANARY77cab1e5123456",
}
# Whole; in two pieces with a pause between; base64 alone and behind a user's name; as in a URL; in JSON; on stderr.
DOCKERFILE = BASE + (
    "RUN --mount=type=secret,id=from-variable --mount=type=secret,id=from-block "
    "for f in /run/secrets/*; do "
    "cat $f; echo; head -c 9 $f; sleep 0.3; tail -c +10 $f; echo; base64 -w 0 $f; echo; "
    '(printf "user:"; cat $f) | base64 -w 0; echo; '
    'perl -pe "s/([^A-Za-z0-9_.-])/sprintf(q(%%%02X),ord(\\$1))/ge" $f; echo; '
    'echo "{\\"token\\": \\"$(cat $f)\\"}"; cat $f >&2; done; sleep 1.5; echo the-end-of-it\n'
)
REFUSED = (
    {"repository_url": f"http://user:{CANARIES['password in a URL']}@example.com/x"},
    {"repository_url": f"user:{CANARIES['password in a URL']}@example.com/x"},
    {"repository_url": f"https://example.com/x?private_token={CANARIES['token in a query']}"},
    {"repository_url": "https://example.com/x", "git_credentials": CANARIES["token for the name of one"]},
)


def songs(canary: str) -> set[bytes]:
    """What gives a canary away, as bytes: itself, and what encoders make of it."""
    user = base64.b64encode(f"user:{canary}".encode()).decode()
    return {
        text.encode() for text in (canary, base64.b64encode(canary.encode()).decode(), user, quote(canary, safe=""))
    }


def sings(content: bytes) -> list[str]:
    return [name for name, canary in CANARIES.items() if any(song in content for song in songs(canary))]


@pytest.fixture(scope="module", params=[0, 1], ids=["20.10", "26.1"])
def engine(request: pytest.FixtureRequest) -> EngineHost:
    return find_engines()[request.param]


@pytest.fixture(scope="module")
def directory(engine: EngineHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canaries")


@pytest.fixture(scope="module")
def http(directory: Path, engine: EngineHost) -> Iterator[GitHttp]:
    """The host's repositories over HTTP, for whoever has the token; before the host, which binds the token to it."""
    with git_http(directory / "git", engine.gateway, {"oauth2": CANARIES["git token"]}) as http:
        yield http


@pytest.fixture(scope="module")
def host(directory: Path, engine: EngineHost, http: GitHttp, caisson: CaissonHost) -> Iterator[BuildHost]:
    name = f"canaries-{engine.gateway.replace('.', '-')}-{os.getpid()}"
    variables = {
        **(newer_engine(engine, name) if engine.socket_in_engine else {}),
        "CAISSON_CREDENTIAL_HOSTS": json.dumps({"git-token": [http.url]}),
        "CAISSON_SECRET_GIT_TOKEN": CANARIES["git token"],
        "CAISSON_SECRET_FROM_VARIABLE": CANARIES["secret from a variable"],
    }
    with build_host(
        directory,
        name,
        engine,
        like=caisson,
        variables=variables,
        password=CANARIES["registry's password"],
    ) as host:
        yield host
        host.remove_images(f"{host.registry_address}/caisson-flow/canaries", "caisson-flow/canaries")


class Seen:
    """What other users of this host can see while a build runs: command lines, and what should know no secret."""

    def __init__(self, host: BuildHost) -> None:
        self.command_lines: set[bytes] = set()
        self.environments: set[bytes] = set()
        self.inspected: set[str] = set()
        self._host = host

    def look(self) -> None:
        ignorant = {*self._host.caisson.processes("uvicorn"), *self._host.caisson.processes("deployments.fork_server")}
        while True:
            for directory in Path("/proc").glob("[0-9]*"):
                try:
                    self.command_lines.add((directory / "cmdline").read_bytes())
                except OSError:
                    continue
            # The forks of the fork server are the runs: what they are given is not in their environment as it began.
            self.environments |= {Path(f"/proc/{pid}/environ").read_bytes() for pid in ignorant}
            with DockerEngine(self._host.engine_host.docker_host) as engine:
                for name in self._host.builders():
                    found = engine.inspect_container(name)
                    self.inspected.add(json.dumps(found.raw) if found else "")
            if self._done.wait(0.02):
                return

    @contextmanager
    def looking(self) -> Iterator[None]:
        self._done = threading.Event()
        looker = threading.Thread(target=self.look)
        looker.start()
        try:
            yield
        finally:
            self._done.set()
            looker.join()


def test_no_canary_sings(host: BuildHost, http: GitHttp) -> None:
    caisson, image = host.caisson, f"{host.registry_address}/caisson-flow/canaries"
    caisson.save_secret("from-block", CANARIES["secret from a block"])
    wait_for("the fork server", lambda: caisson.processes("deployments.fork_server"))
    host.repository("canaries", DOCKERFILE)
    seen = Seen(host)
    secrets = [
        "--no-cache",
        "--secret",
        "from-variable",
        "--secret",
        "from-block",
        "--git-credentials",
        "git-token",
    ]
    command = [CAISSON, "build", f"{http.url}/private/canaries/.git", "--image", image, "--push", *secrets]
    with seen.looking():
        done = subprocess.run(command, env=caisson.env, capture_output=True, check=False)
    refusals = b""
    for asked in REFUSED:
        options = ["--git-credentials", asked["git_credentials"]] if "git_credentials" in asked else []
        command = [CAISSON, "build", asked["repository_url"], "--image", "x", *options]
        # By the command itself, and by a Caisson elsewhere, whose settings the command does not know.
        for more in ({}, {"CAISSON_API_URL": caisson.api.api_url}):
            refused = subprocess.run(command, env=caisson.env | more, capture_output=True, check=False)
            assert refused.returncode == RequestInvalid.exit_code
            refusals += refused.stdout + refused.stderr
        # And by Prefect, of which somebody asks it without Caisson.
        with pytest.raises(RequestInvalid):
            caisson.trigger("build-image", request={"image": "x", **asked})
    terminal = done.stdout + done.stderr
    assert done.returncode == 0, terminal.decode()
    assert host.registry.tags("caisson-flow/canaries")
    assert {authorization.partition(":")[2] for authorization in http.authorizations()} == {CANARIES["git token"]}
    # The build did print them, and masks stand where they were.
    assert terminal.count(b"***") >= 12
    assert b"the-end-of-it" in terminal
    with caisson.api as api:
        asked = ("/logs/filter", "/artifacts/filter", "/flow_runs/filter", "/task_runs/filter")
        answers = [api.post(path, {"limit": 200}) for path in asked]
        answers += [api.get(f"/flow_run_states/?flow_run_id={run['id']}") for run in answers[2]]
    (reference, *_) = host.images(image)
    docker = ["docker", "--host", host.engine_host.docker_host]
    places: dict[str, bytes] = {
        "the terminal": terminal + refusals,
        "the API's answers": json.dumps(answers, ensure_ascii=False).encode(),
        "command lines": b"\n".join(seen.command_lines),
        "the environments of the server and the fork server": b"\n".join(seen.environments),
        "the builder, inspected": "\n".join(seen.inspected).encode(),
        "the image, inspected": subprocess.run([*docker, "inspect", reference], check=True, capture_output=True).stdout,
        "its history": subprocess.run(
            [*docker, "history", "--no-trunc", reference], check=True, capture_output=True
        ).stdout,
        "its layers and config": subprocess.run([*docker, "save", reference], check=True, capture_output=True).stdout,
        **{str(file): file.read_bytes() for file in caisson.state_dir.rglob("*") if file.is_file()},
    }
    assert any(b"docker\0buildx\0build" in line for line in seen.command_lines)
    assert any(caisson.name in text for text in seen.inspected)
    assert len(places[str(caisson.state_dir / "prefect" / "prefect.db")]) > 1 << 20
    assert {place: found for place, content in places.items() if (found := sings(content))} == {}
