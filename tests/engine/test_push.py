"""Pushes by real engines to a real registry, and to one that fails in chosen ways."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from caisson.docker_engine import DockerEngine
from caisson.engine import Engine, ImageID, PushProgress, RegistryAuth
from caisson.errors import BuildTimedOut, CaissonError, EngineLost, EngineRefused, PushDenied, RegistryUnreachable
from caisson.push import should_retry
from tests.conftest import EngineHost
from tests.engine.conftest import Builds
from tests.engine.network import EngineNetwork
from tests.engine.registry import Registry, docker_registry, faulty_registry, silent_registry
from tests.engine.repositories import Repository
from tests.own_engine import own_engine

LAYER_BYTES = 3 << 20


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, engine_host: EngineHost) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("registry"), engine_host.socket) as running:
        yield running


def _import(engine_host: EngineHost) -> ImageID:
    """An image of one layer that no registry has."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("layer")
        entry.size = LAYER_BYTES
        tar.addfile(entry, io.BytesIO(os.urandom(LAYER_BYTES)))
    with closing(docker.APIClient(base_url=engine_host.docker_host, version="auto")) as client:
        made = client.import_image_from_data(archive.getvalue(), repository="caisson-test/push", tag="layer")
    return ImageID(json.loads(made.splitlines()[-1])["status"])


@pytest.fixture
def image(engine_host: EngineHost, engine: Engine) -> Iterator[ImageID]:
    """Such an image; all its tags are gone afterwards."""
    image_id = _import(engine_host)
    yield image_id
    there = engine.inspect_image(image_id)
    for tag in there.tags if there else ():
        engine.untag_image(tag)


Push = Callable[[str, RegistryAuth | None], tuple[str, list[PushProgress]]]


@pytest.fixture
def push(engine: Engine, image: ImageID) -> Push:
    """Tags the image and pushes it; returns the digest and what was said on the way."""

    def tag_and_push(reference: str, auth: RegistryAuth | None) -> tuple[str, list[PushProgress]]:
        engine.tag_image(image, reference)
        said: list[PushProgress] = []
        progress = engine.push_image(reference, auth)
        while True:
            try:
                said.append(next(progress))
            except StopIteration as end:
                return str(end.value), said

    return tag_and_push


def _failure(push: Push, reference: str, auth: RegistryAuth | None) -> CaissonError:
    with pytest.raises(CaissonError) as caught:
        push(reference, auth)
    if auth is not None:
        assert auth.password not in json.dumps(caught.value.to_dict())
    return caught.value


def test_the_digest_of_a_push_is_the_one_that_the_registry_has(push: Push, registry: Registry) -> None:
    digest, said = push(f"{registry.address}/team/app:v1", registry.auth)
    assert digest == registry.digest("team/app", "v1")
    assert digest.startswith("sha256:")
    assert said[-1].status == "Pushed"
    assert max(progress.total for progress in said) >= LAYER_BYTES

    again, said = push(f"{registry.address}/team/app:v2", registry.auth)
    assert (again, registry.digest("team/app", "v2")) == (digest, digest)
    assert said[-1].status == "Layer already exists"
    assert {"v1", "v2"} <= set(registry.tags("team/app"))


@pytest.mark.parametrize("auth", [RegistryAuth("alice", "wrong-password"), RegistryAuth("mallory", "guess"), None])
def test_wrong_or_no_credentials_are_denied_and_nothing_arrives(
    push: Push, registry: Registry, auth: RegistryAuth | None
) -> None:
    error = _failure(push, f"{registry.address}/denied/app:v1", auth)
    assert type(error) is PushDenied
    assert not should_retry(error)
    assert registry.tags("denied/app") == []


def test_a_registry_that_is_down_is_worth_another_try_and_takes_the_push_when_it_is_back(
    push: Push, registry: Registry
) -> None:
    reference = f"{registry.address}/team/back:v1"
    registry.stop()
    try:
        error = _failure(push, reference, registry.auth)
    finally:
        registry.start()
    assert type(error) is RegistryUnreachable
    assert should_retry(error)
    digest, _ = push(reference, registry.auth)
    assert digest == registry.digest("team/back", "v1")


def _errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "retry"),
    [
        (401, _errors("UNAUTHORIZED", "authentication required"), PushDenied, False),
        (403, _errors("DENIED", "requested access to the resource is denied"), PushDenied, False),
        (403, b"<html>Forbidden</html>", PushDenied, False),
        (404, _errors("NAME_UNKNOWN", "repository name not known to registry"), EngineRefused, False),
        (400, _errors("NAME_INVALID", "invalid repository name"), EngineRefused, False),
        (413, b"<html>Request Entity Too Large</html>", EngineRefused, False),
        (429, _errors("TOOMANYREQUESTS", "limit"), RegistryUnreachable, True),
        (500, _errors("UNKNOWN", "unknown error"), RegistryUnreachable, True),
        (502, b"<html>Bad Gateway</html>", RegistryUnreachable, True),
        (503, b"Service Unavailable", RegistryUnreachable, True),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_what_a_registry_answers_decides_whether_another_try_is_worth_it(
    engine_host: EngineHost,
    push: Push,
    registry: Registry,
    status: int,
    body: bytes,
    kind: type[CaissonError],
    retry: bool,
) -> None:
    # An engine asks whether a registry has a layer only once it has pushed that layer with the same credentials.
    push(f"{registry.address}/team/app:known", registry.auth)
    with faulty_registry(engine_host.socket, status, body) as faulty:
        error = _failure(push, f"{faulty.address}/team/app:v1", registry.auth)
    assert any(asked.startswith("PUT /v2/team/app/manifests/") for asked in faulty.asked)
    assert (type(error), should_retry(error)) == (kind, retry)


def test_a_registry_without_tls_beyond_loopback_is_not_trusted_and_not_tried_again(
    engine_host: EngineHost, push: Push, tmp_path: Path
) -> None:
    address = EngineNetwork.of_engine(engine_host.socket).address()
    with docker_registry(tmp_path / "plain", engine_host.socket, address=address) as plain:
        error = _failure(push, f"{plain.address}/team/app:v1", plain.auth)
    assert type(error) is RegistryUnreachable
    assert "insecure-registries" in error.hint
    assert not should_retry(error)


def test_a_host_that_does_not_exist_is_unreachable(push: Push) -> None:
    error = _failure(push, "registry.invalid:5000/team/app:v1", None)
    assert type(error) is RegistryUnreachable


def test_a_registry_that_says_nothing_is_worth_another_try(
    engine_host: EngineHost, engine: Engine, image: ImageID
) -> None:
    with silent_registry(EngineNetwork.of_engine(engine_host.socket)) as (address, asked):
        engine.tag_image(image, f"{address}/team/app:v1")
        with pytest.raises(RegistryUnreachable, match="Nothing was heard of the push") as caught:
            list(engine.push_image(f"{address}/team/app:v1", None, silence=2))
    assert asked.is_set()
    assert should_retry(caught.value)


def test_an_engine_that_is_killed_during_a_push_is_lost() -> None:
    with own_engine("10.231.86.1") as own:
        image = _import(own.host)
        with (
            DockerEngine(own.host.docker_host) as engine,
            silent_registry(EngineNetwork(own.holder.pid)) as (address, asked),
        ):
            engine.tag_image(image, f"{address}/team/app:v1")

            def kill() -> None:
                asked.wait(30)
                own.stop(signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            with pytest.raises(EngineLost, match="went away during the push"):
                list(engine.push_image(f"{address}/team/app:v1", None))
            killer.join()


def test_a_tag_that_is_not_on_the_engine_is_the_engines_refusal(engine_host: EngineHost, registry: Registry) -> None:
    with DockerEngine(engine_host.docker_host) as engine, pytest.raises(EngineRefused, match="not on the engine"):
        list(engine.push_image(f"{registry.address}/team/none:v1", registry.auth))


@pytest.fixture
def logged_in(builds: Builds, registry: Registry, engine: Engine) -> Iterator[Builds]:
    yield builds.with_settings(
        registry=f"http://{registry.address}",
        registry_username=registry.auth.username,
        registry_password=registry.auth.password,
    )
    for image in engine.list_images():
        for tag in image.tags:
            if tag.startswith(f"{registry.address}/"):
                engine.untag_image(tag)


def _repository(builds: Builds, name: str) -> Repository:
    return builds.repository("FROM scratch\nCOPY hello /hello\n", name, hello=f"{name} {os.urandom(8).hex()}\n")


def _tries(builds: Builds) -> int:
    return sum(log.read_text().count("Trying again in") for log in builds.settings.state_dir.glob("builds/*.log"))


def test_a_build_pushes_every_tag_and_reports_the_registrys_digests(logged_in: Builds, registry: Registry) -> None:
    image = f"{registry.address}/team/built"
    report = logged_in(_repository(logged_in, "pushed"), image=image, push=True, tags={"raw": ["stable"]})
    tags = {tag.reference.removeprefix(f"{image}:"): tag.digest for tag in report.tags}
    assert sorted(tags) == registry.tags("team/built")
    assert tags == {tag: registry.digest("team/built", tag) for tag in tags}
    assert {"main", "latest", "stable"} <= set(tags)
    assert registry.auth.password not in report.model_dump_json()
    assert registry.auth.password not in Path(report.log_file).read_text()
    assert _tries(logged_in) == 0


def test_a_denied_push_is_tried_once_and_the_image_keeps_its_tags(
    logged_in: Builds, engine: Engine, registry: Registry
) -> None:
    stranger = logged_in.with_settings(registry_password="wrong-password")
    image = f"{registry.address}/team/denied"
    with pytest.raises(PushDenied) as caught:
        stranger(_repository(stranger, "denied"), image=image, push=True)
    assert "wrong-password" not in json.dumps(caught.value.to_dict())
    assert _tries(stranger) == 0
    assert engine.inspect_image(f"{image}:main") is not None
    assert registry.tags("team/denied") == []


def test_a_build_gets_over_a_registry_that_restarts(logged_in: Builds, registry: Registry) -> None:
    done = threading.Event()

    def start_again_after_the_first_failure() -> None:
        while not done.is_set() and _tries(logged_in) == 0:
            done.wait(0.05)
        registry.start()

    repository = _repository(logged_in, "restart")
    registry.stop()
    helper = threading.Thread(target=start_again_after_the_first_failure)
    helper.start()
    try:
        report = logged_in(repository, image=f"{registry.address}/team/restart", push=True, tags={"raw": ["back"]})
    finally:
        done.set()
        helper.join()
    assert _tries(logged_in) >= 1
    assert {tag.digest for tag in report.tags} == {registry.digest("team/restart", "back")}


def test_a_push_that_is_tried_again_ends_with_the_timeout_of_its_build(logged_in: Builds, registry: Registry) -> None:
    repository, image = _repository(logged_in, "late"), f"{registry.address}/team/late"
    logged_in(repository, image=image)
    registry.stop()
    began = time.monotonic()
    try:
        with pytest.raises(BuildTimedOut):
            logged_in.with_settings(push_attempts=9)(
                repository, image=image, push=True, limits={"timeout_minutes": 0.4}
            )
    finally:
        registry.start()
    assert _tries(logged_in) >= 1
    assert time.monotonic() - began < 0.4 * 60 + 8
