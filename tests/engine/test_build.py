"""Builds for real: what comes out, what fails how, and that nothing stays behind."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable

import pytest

from caisson.engine import Engine
from caisson.errors import (
    BaseImageUnreachable,
    BuildCancelled,
    BuilderImageMissing,
    BuildFailed,
    BuildStepFailed,
    BuildTimedOut,
    CaissonError,
    ContextInvalid,
    DiskTooFull,
    DockerfileDenied,
    DockerfileInvalid,
    EngineLost,
    EngineUnreachable,
    LimitsNotEnforceable,
    OutOfMemory,
    PidsExhausted,
    RefNotFound,
    RepositoryUnreachable,
    RequestInvalid,
    SecretMissing,
    WorkspaceFull,
)
from tests.engine.conftest import Builds, own_builders

BASE = "FROM debian:trixie-slim\n"
Leftovers = Callable[[], list[str]]


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_builder_is_left(leftovers: Leftovers) -> object:
    yield
    assert leftovers() == []


def test_an_image_is_built_tagged_labelled_and_reported(builds: Builds, engine: Engine, builder: str) -> None:
    repository = builds.repository(BASE + "COPY hello /hello\nRUN cat /hello\n", hello="grüße\n")
    sha = repository.commit({"hello": "welt\n"})
    report = builds(repository, builder=builder, labels={"team": "blue"}, tags={"raw": ["stable"]}, no_cache=True)

    assert (report.outcome, report.sha, report.builder) == ("built", sha, builder)
    references = [tag.reference for tag in report.tags]
    assert {f"caisson-test/app:{tag}" for tag in (f"sha-{sha}", f"sha-{sha[:7]}", "main", "latest", "stable")} == set(
        references
    )
    image = engine.inspect_image("caisson-test/app:main")
    assert image is not None
    assert image.id == report.image_id
    assert image.labels["org.opencontainers.image.revision"] == sha
    assert image.labels["org.opencontainers.image.source"] == repository.url
    assert image.labels["team"] == "blue"
    assert image.labels["caisson.image.build"] == report.build_id
    assert image.labels["caisson.image.host"] == report.host
    # By those labels alone a container is a builder, and a container has the labels of its image.
    assert not {"caisson.build", "caisson.flow-run"} & image.labels.keys()
    assert not [tag for tag in image.tags if tag.startswith("caisson.local/")]
    assert report.builder_removed
    assert report.limits is not None
    assert report.limits.memory == builds.settings.memory
    assert [step.name for step in report.steps if step.state == "completed"] == [
        "check_mounts",
        "check_disk",
        "start_builder",
        "resolve_commit",
        "reuse_image",
        "clone",
        "check_dockerfile",
        "build",
        "tag_image",
        "remove_builder",
    ]
    assert any("welt" in line for line in report.log_tail)


def test_run_steps_are_held_to_the_limits_as_the_kernel_tells(builds: Builds, engine: Engine, builder: str) -> None:
    report = builds(builds.repository(BASE + "RUN sleep 0.2\n"), builder=builder, no_cache=True)
    assert report.limits is not None
    can_hold = builder == "classic" or engine.info().api >= (1, 42)
    assert report.limits.status == ("verified" if can_hold else "builder only")
    assert (report.limits.step_groups > 0) == can_hold


def test_auto_takes_a_builder_that_holds_its_steps(builds: Builds, engine: Engine) -> None:
    report = builds(builds.repository(BASE + "RUN true\n"), no_cache=True)
    assert report.builder == ("buildkit" if engine.info().api >= (1, 42) else "classic")
    assert report.limits is not None
    assert report.limits.status == "verified"


def test_require_limits_refuses_what_cannot_be_held(builds: Builds, engine: Engine) -> None:
    strict = builds.with_settings(require_limits=True)
    repository = builds.repository(BASE + "RUN true\n")
    if engine.info().api >= (1, 42):
        assert strict(repository, builder="buildkit", no_cache=True).limits.status == "verified"  # type: ignore[union-attr]
    else:
        with pytest.raises(LimitsNotEnforceable, match=r"20\.10"):
            strict(repository, builder="buildkit", no_cache=True)


def test_the_same_commit_and_spec_is_tagged_without_a_build(builds: Builds) -> None:
    repository = builds.repository(BASE + "RUN echo once > /once\n")
    first = builds(repository)
    second = builds(repository, image="caisson-test/other")
    assert (second.outcome, second.image_id) == ("reused", first.image_id)
    assert "build" not in [step.name for step in second.steps]
    assert any(tag.reference.startswith("caisson-test/other:") for tag in second.tags)
    assert builds(repository, no_cache=True).outcome == "built"
    assert builds(repository, build_args={"A": "1"}).outcome == "built"


def test_a_forged_label_is_no_proof_of_a_build(builds: Builds) -> None:
    repository = builds.repository(BASE + "RUN echo victim\n", "victim")
    spec = builds(repository).spec_hash
    fresh = builds.with_settings(state_dir=builds.settings.state_dir / "fresh")
    fresh(builds.repository(f"{BASE}LABEL caisson.spec={spec}\nRUN echo evil\n", "evil"), image="caisson-test/evil")
    assert fresh(repository).outcome == "built"


def test_moving_a_tag_records_what_it_pointed_to(builds: Builds) -> None:
    repository = builds.repository(BASE + "RUN echo 1\n")
    first = builds(repository)
    repository.commit({"Dockerfile": BASE + "RUN echo 2\n"})
    second = builds(repository)
    moved = {tag.reference: tag.previous for tag in second.tags}
    assert moved["caisson-test/app:main"] == first.image_id


def test_target_arguments_and_subdirectory(builds: Builds, engine: Engine, builder: str) -> None:
    repository = builds.git.repository(
        "sub",
        {
            "service/build/Dockerfile.prod": f"{BASE.strip()} AS one\nARG NAME\nRUN echo $NAME > /name && cat /name\n"
            "FROM one AS two\nRUN false\n"
        },
    )
    report = builds(
        repository,
        context="service",
        dockerfile="build/Dockerfile.prod",
        target="one",
        build_args={"NAME": "mind the 'quotes' $(id) \"here\""},
        builder=builder,
    )
    assert report.outcome == "built"
    assert any("mind the 'quotes' $(id)" in line for line in report.log_tail)


def test_cache_hits_are_counted(builds: Builds, builder: str) -> None:
    # An engine that was used before may have these steps in its cache already.
    unique = uuid.uuid4().hex
    repository = builds.repository(
        BASE + "COPY kept /kept\nRUN cat /kept\nCOPY changed /changed\n", kept=unique, changed=unique
    )
    builds(repository, builder=builder)
    repository.commit({"changed": f"{unique} and more"})
    report = builds(repository, builder=builder)
    cached = {step.name.split("] ")[-1]: step.cached for step in report.dockerfile_steps}
    assert cached["COPY kept /kept"]
    assert not cached["COPY changed /changed"]
    assert report.cache_hits >= 1
    assert cached["RUN cat /kept"]
    starts = [step.start for step in report.dockerfile_steps if step.start is not None]
    assert len(starts) == len(report.dockerfile_steps)
    assert 0 < min(starts) <= max(starts) < report.seconds


def test_labels_that_caisson_passes_are_no_steps_of_the_dockerfile(builds: Builds) -> None:
    label = f"LABEL caisson.test={uuid.uuid4().hex} zz=1"
    repository = builds.repository(f"{BASE}RUN true\n{label}\n")
    report = builds(repository, builder="classic", labels={"zz": "2", "a": "b c"})
    assert [step.name.split("] ")[1] for step in report.dockerfile_steps] == [BASE.strip(), "RUN true", label]


def test_a_failing_step_is_named_with_its_exit_code_and_last_lines(builds: Builds, builder: str) -> None:
    with pytest.raises(BuildStepFailed) as caught:
        builds(builds.repository(BASE + "RUN echo before\nRUN echo the reason >&2; exit 42\n"), builder=builder)
    assert caught.value.details["exit_code"] == 42
    assert "exit 42" in caught.value.details["step"]
    assert any("the reason" in line for line in caught.value.details["last_lines"])


def test_a_step_that_eats_memory_is_out_of_memory_by_the_kernels_word(builds: Builds) -> None:
    with pytest.raises(OutOfMemory) as caught:
        builds(
            builds.repository(BASE + "RUN perl -e '$x = \"a\" x 400_000_000; print length $x'\n"),
            limits={"memory": "128m"},
        )
    assert "perl" in caught.value.details["step"]


def test_a_step_that_forks_without_end_is_out_of_processes(builds: Builds) -> None:
    with pytest.raises(PidsExhausted):
        builds(builds.repository(BASE + "RUN bash -c 'f() { f | f & }; f; sleep 5; exit 1'\n"), limits={"pids": 64})


def test_a_step_that_sleeps_for_ever_is_timed_out_and_nothing_of_it_runs_on(builds: Builds, builder: str) -> None:
    begin, seconds = time.monotonic(), _seconds()
    with pytest.raises(BuildTimedOut):
        builds(builds.repository(BASE + f"RUN sleep {seconds}\n"), builder=builder, limits={"timeout_minutes": 0.08})
    assert time.monotonic() - begin < 25
    assert _gone(f"sleep\x00{seconds}")


def test_a_repository_larger_than_the_workspace_is_workspace_full(builds: Builds) -> None:
    import os

    repository = builds.git.repository("big", {"Dockerfile": BASE, "big": os.urandom(8 << 20)})
    with pytest.raises(WorkspaceFull):
        builds(repository, limits={"workspace": "6m", "memory": "256m"})


def test_a_repository_that_fits_into_the_workspace_but_not_into_the_memory_is_out_of_memory(builds: Builds) -> None:
    import os

    files: dict[str, str | bytes] = {f"big{number}": os.urandom(9 << 20) for number in range(3)}
    repository = builds.git.repository("heavy", {"Dockerfile": BASE, **files})
    with pytest.raises(OutOfMemory) as caught:
        builds(repository, limits={"workspace": "62m", "memory": "64m"})
    assert caught.value.details["oom_kills"] >= 1
    assert "The clone ran out of memory" in caught.value.message


@pytest.mark.parametrize(
    ("dockerfile", "kind"),
    [
        ("", DockerfileInvalid),
        ("FRUM debian\n", DockerfileInvalid),
        # BuildKit's frontend panics at this one, and dockerd with it.
        ("ARG ONLY=this\n", DockerfileInvalid),
        (BASE + "ADD http://169.254.169.254/latest/meta-data /x\n", DockerfileDenied),
        ("FROM caisson.local/build:0123456789ab\n", DockerfileDenied),
        (BASE + "COPY nothing /x\n", BuildFailed),
    ],
)
def test_a_dockerfile_that_cannot_be_built(
    builds: Builds, builder: str, dockerfile: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        builds(builds.repository(dockerfile), builder=builder)


def test_a_base_image_that_is_nowhere_is_told_as_such(builds: Builds, builder: str) -> None:
    # Where the registry is out of reach nobody can say that it does not have the image.
    with pytest.raises((BuildFailed, BaseImageUnreachable), match="A base image can't be had"):
        builds(builds.repository("FROM caisson-test/no-such-image:1\n"), builder=builder)


def test_a_missing_target_is_an_invalid_dockerfile(builds: Builds, builder: str) -> None:
    with pytest.raises(DockerfileInvalid):
        builds(builds.repository(BASE), builder=builder, target="nowhere")


def test_a_missing_dockerfile_and_a_missing_context_are_told_apart(builds: Builds) -> None:
    repository = builds.git.repository("bare", {"docker/Dockerfile": BASE})
    with pytest.raises(DockerfileInvalid, match="Dockerfile"):
        builds(repository)
    with pytest.raises(ContextInvalid):
        builds(repository, context="nowhere")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"min_free_bytes": 1 << 60}, DiskTooFull),
        ({"min_free_inodes": 1 << 60}, DiskTooFull),
        ({"builder_image": "caisson-test/none:1"}, BuilderImageMissing),
        ({"docker_host": "unix:///run/nothing.sock"}, EngineUnreachable),
    ],
)
def test_a_host_that_is_not_fit(builds: Builds, change: dict[str, object], kind: type[CaissonError]) -> None:
    with pytest.raises(kind) as caught:
        builds.with_settings(**change)(builds.repository(BASE))
    assert str(caught.value)


def test_bad_refs_and_repositories(builds: Builds) -> None:
    repository = builds.repository(BASE)
    with pytest.raises(RefNotFound):
        builds(repository, ref="no-such-branch")
    with pytest.raises(RepositoryUnreachable):
        builds(f"git://{builds.git.address}:1/app")
    with pytest.raises(SecretMissing):
        builds(repository, secrets=["not-there"])
    with pytest.raises(RequestInvalid):
        builds(repository, secrets=["x"], builder="classic")


def test_more_cores_than_the_engine_has_are_refused_and_a_default_of_more_is_lowered(
    builds: Builds, engine: Engine
) -> None:
    has = engine.info().cpus
    repository = builds.repository(BASE + "RUN true\n", "cores")
    with pytest.raises(RequestInvalid, match=rf"limits\.cpus: {has + 1} is more than the engine has"):
        builds(repository, limits={"cpus": has + 1})
    report = builds.with_settings(cpus=has + 1.0)(repository, no_cache=True)
    assert report.limits is not None
    assert (report.limits.asked_cpus, report.limits.cpus) == (has, has)
    assert [note for note in report.notes if "was lowered" in note]


def test_a_registry_by_ipv6_address_is_refused_early_where_the_engine_knows_none(
    builds: Builds, engine: Engine
) -> None:
    repository = builds.repository(BASE + "RUN true\n", "ipv6")
    if engine.info().api < (1, 42):
        with pytest.raises(RequestInvalid, match=r"image: engine 20\.10\.\S+ takes no IPv6 address"):
            builds(repository, image="[::1]:5000/caisson-test/app")
        return
    report = builds(repository, image="[::1]:5000/caisson-test/app")
    for tag in report.tags:
        assert engine.untag_image(tag.reference)


def test_a_builder_removed_from_outside_ends_the_build_as_cancelled(
    builds: Builds, engine: Engine, builder: str
) -> None:
    seconds = _seconds()

    def remove() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and _gone(f"sleep\x00{seconds}"):
            time.sleep(0.05)
        for container in own_builders(engine, builds.settings):
            engine.remove_container(container.id)

    thread = threading.Thread(target=remove)
    thread.start()
    with pytest.raises(BuildCancelled):
        builds(builds.repository(BASE + f"RUN sleep {seconds}\n"), builder=builder)
    thread.join()
    assert _gone(f"sleep\x00{seconds}")


def test_a_builder_that_is_killed_but_not_by_the_engine_is_lost_and_not_cancelled(
    builds: Builds, engine: Engine
) -> None:
    seconds = _seconds()

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and _gone(f"sleep\x00{seconds}"):
            time.sleep(0.05)
        for container in own_builders(engine, builds.settings):
            found = engine.inspect_container(container.id)
            assert found is not None
            os.kill(found.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    once = builds.with_settings(build_attempts=1)
    with pytest.raises(EngineLost):
        once(builds.repository(BASE + f"RUN sleep {seconds}\n"))
    thread.join()
    assert _gone(f"sleep\x00{seconds}")


def test_the_same_build_twice_at_once_and_ten_at_once(builds: Builds) -> None:
    repository = builds.repository(BASE + "RUN sleep 1; date +%N > /stamp\n")
    reports, errors = [], []

    def one(number: int) -> None:
        try:
            reports.append(builds(repository, image=f"caisson-test/app{number % 9}", limits={"memory": "256m"}))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({report.build_id for report in reports}) == 10
    assert all(report.outcome in ("built", "reused") for report in reports)


def test_a_secret_reaches_the_step_and_nothing_else(
    builds: Builds, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAISSON_SECRET_NPM_TOKEN", "canary-5f2e81aa77")
    dockerfile = BASE + "RUN --mount=type=secret,id=npm-token cat /run/secrets/npm-token | tee /dev/stderr | md5sum\n"
    report = builds(builds.repository(dockerfile), secrets=["npm-token"], builder="buildkit", no_cache=True)
    text = report.model_dump_json()
    assert "canary-5f2e81aa77" not in text
    assert "***" in text
    assert "canary-5f2e81aa77" not in str(engine.inspect_image(report.image_id))
    for file in builds.settings.state_dir.rglob("*"):
        if file.is_file():
            assert b"canary-5f2e81aa77" not in file.read_bytes(), file


def _seconds() -> int:
    """A time to sleep that no other test sleeps."""
    return random.randrange(10**6, 10**7)


def _gone(cmdline: str, seconds: float = 3) -> bool:
    """Whether no process on this host has that command line (within a moment)."""
    from pathlib import Path

    deadline = time.monotonic() + seconds
    while True:
        found = False
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    found = found or (process / "cmdline").read_bytes().startswith(cmdline.encode())
                except OSError:
                    continue
        if not found or time.monotonic() > deadline:
            return not found
        time.sleep(0.05)
