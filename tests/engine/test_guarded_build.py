"""Builds behind their guard: what the report says of it, what is denied and why, and that nothing of it stays."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import tasks.hold_guard
from caisson.errors import CaissonError, DockerfileDenied, GuardDenied, SettingsInvalid
from caisson.reference import parse_reference
from caisson.report import BuildReport
from tests.engine.conftest import Builds

BASE = "FROM debian:trixie-slim\n"


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def posture(report: BuildReport, title: str) -> str:
    return next(item.status for item in report.posture if item.title == title)


def sockets(builds: Builds) -> list[str]:
    return [name for name in os.listdir(builds.settings.guard_dir) if name.endswith(".sock")]  # noqa: PTH208


def test_a_build_has_a_guarded_socket_and_its_report_says_what_was_decided(builds: Builds, builder: str) -> None:
    report = builds(builds.repository(BASE + "RUN sleep 0.1\n"), builder=builder, no_cache=True)
    assert report.guard is not None
    assert posture(report, "Its socket is a guarded one") == "pass"
    rules = {item.rule: item.count for item in report.guard.counts if item.verdict == "allow"}
    assert rules.keys() >= ({"ping", "build", "context"} if builder == "classic" else {"grpc", "session"})
    assert {denial.rule for denial in report.guard.denials} <= {"buildkit-declined"}
    lines = [json.loads(line) for line in Path(report.guard.audit_file).read_text().splitlines()]
    assert {line["build"] for line in lines} == {report.build_id}
    assert len({line["container"] for line in lines}) == 1
    assert len([line for line in lines if line["event"] == "decision"]) == sum(
        item.count for item in report.guard.counts
    )
    assert f"{report.build_id}.sock" not in sockets(builds)


def test_the_raw_socket_is_there_for_those_who_must_and_the_posture_says_so(builds: Builds, builder: str) -> None:
    report = builds.with_settings(socket="raw")(builds.repository(BASE), builder=builder)
    assert report.outcome == "built"
    assert report.guard is None
    assert posture(report, "Its socket is a guarded one") == "fail"


def test_a_socket_that_the_engine_does_not_see_is_refused_by_name_and_nothing_is_made_in_its_place(
    builds: Builds, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    astray = builds.with_settings(engine_guard_dir=str(elsewhere))
    with pytest.raises(SettingsInvalid, match="CAISSON_ENGINE_GUARD_DIR"):
        astray(builds.repository(BASE))
    assert not elsewhere.exists()


def test_a_denial_is_what_the_build_fails_with(builds: Builds, builder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tasks.hold_guard.guard_policy
    another = parse_reference("caisson.local/build:another")
    monkeypatch.setattr(tasks.hold_guard, "guard_policy", lambda *given: replace(own(*given), image=another))
    with pytest.raises(GuardDenied, match=r"has to be named caisson\.local/build:another") as caught:
        builds(builds.repository(BASE), builder=builder)
    assert caught.value.details["rule"] == "build-name"


def test_images_of_other_repositories_are_theirs(builds: Builds, builder: str) -> None:
    theirs = builds.repository(BASE + "RUN echo theirs > /mark\n", name="theirs")
    builds(theirs, image="caisson-test/theirs", builder=builder)
    ours = builds.repository("FROM caisson-test/theirs:main\n", name="ours")
    with pytest.raises(DockerfileDenied, match="was built here for another repository") as caught:
        builds(ours, builder=builder)
    assert "CAISSON_DOCKERFILE_SHARED_REPOSITORIES" in caught.value.hint
    assert caught.value.details["findings"][0]["line"] == 1

    shared = builds.with_settings(dockerfile_shared_repositories=("caisson-test/theirs",))
    assert shared(ours, builder=builder).outcome == "built"
    theirs.commit({"Dockerfile": "FROM caisson-test/theirs:main\nRUN echo more > /more\n"})
    assert builds(theirs, image="caisson-test/theirs", builder=builder).outcome == "built"


def test_what_a_base_image_on_the_engine_would_have_fetched_is_denied(builds: Builds, builder: str) -> None:
    theirs = builds.repository(f"{BASE}ONBUILD ADD http://127.0.0.1:1/x /x\n", name="base")
    lax = builds.with_settings(dockerfile_allowed_hosts=("127.0.0.1",))
    lax(theirs, image="caisson-test/base", builder=builder)
    theirs.commit({"Dockerfile": "FROM caisson-test/base:main\n"})
    with pytest.raises(DockerfileDenied, match=r"ONBUILD trigger 'ADD http://127\.0\.0\.1:1/x /x' of the base image"):
        builds(theirs, image="caisson-test/base", builder=builder)
    # Where it is allowed, the engine does it.
    with pytest.raises(CaissonError) as failed:
        lax(theirs, image="caisson-test/base", builder=builder)
    assert not isinstance(failed.value, DockerfileDenied)
    assert "refused" in str(failed.value.details)


def test_another_reader_of_the_dockerfile_is_denied_where_it_would_be_used(builds: Builds, builder: str) -> None:
    repository = builds.repository(f"# syntax=caisson-test/frontend:1\n{BASE}")
    if builder == "classic":
        assert builds(repository, builder=builder).outcome == "built"
        return
    with pytest.raises(DockerfileDenied, match="CAISSON_DOCKERFILE_FRONTENDS"):
        builds(repository, builder=builder)


def test_a_listed_reader_is_not_used_so_nothing_is_hidden_from_the_one_that_is(builds: Builds) -> None:
    listed = builds.with_settings(dockerfile_frontends=("caisson-test/frontend:1",))
    syntax = "# syntax=caisson-test/frontend:1\n"
    # There is no such image: were it asked for, this would fail.
    assert listed(builds.repository(syntax + BASE), builder="buildkit").outcome == "built"
    # For the listed reader all this would be text; engine 20.10 knows no heredocs, and would copy from that image.
    hidden = f"{syntax}{BASE}COPY <<CMD /x\nCOPY --from=caisson.local/build:0123456789ab / /y\nCMD\n"
    repository = builds.repository(hidden, name="hidden", **{"<<CMD": "x"})
    if builds.engine.info().version.startswith("20.10"):
        with pytest.raises(DockerfileDenied, match="image-reserved"):
            listed(repository, builder="buildkit")
    else:
        assert listed(repository, builder="buildkit").outcome == "built"
