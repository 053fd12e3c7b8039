"""What of dead builds is reaped: one test for each rule, and nothing else goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from caisson.engine import ContainerID, ContainerInfo, ImageID, ImageInfo
from caisson.plan import container_name, reference_under_construction
from caisson.reaping import Reaping, Word, judge_builder, judge_names, judge_step

NOW = datetime(2030, 1, 2, tzinfo=UTC)
DEAD, LIVE = "0123456789ab", "ba9876543210"
RUN = "00000000-0000-0000-0000-000000000001"


def judge(
    word: Word | None = Word.DEAD,
    *,
    run: str = RUN,
    deadline: str = "2030-01-01T23:00:00+00:00",
    held: tuple[str, ...] = (),
    host: str = "here",
) -> Reaping:
    labels = {"caisson.build": DEAD, "caisson.flow-run": run, "caisson.deadline": deadline, "caisson.host": host}
    builder = ContainerInfo(ContainerID("c"), container_name(DEAD), "created", labels)
    return judge_builder(builder, {run: word} if word else {}, held=held, host="here", now=NOW)


def verdict(found: Reaping) -> tuple[bool, str]:
    return found.reaped, found.rule


def test_a_builder_goes_when_its_run_is_dead_and_its_deadline_is_past() -> None:
    found = judge()
    assert verdict(found) == (True, "dead")
    assert found.name == container_name(DEAD)
    assert found.reason == f"the run {RUN} has ended, and its deadline is past"


def test_a_run_that_is_going_on_keeps_its_builder_however_late_it_is() -> None:
    assert verdict(judge(Word.LIVE)) == (False, "live")


def test_a_builder_that_prefect_did_not_answer_for_stays() -> None:
    assert verdict(judge(None)) == (False, "unknown")


def test_a_dead_runs_builder_stays_until_a_minute_after_its_deadline() -> None:
    assert verdict(judge(deadline=(NOW - timedelta(minutes=1)).isoformat())) == (False, "not-overdue")
    assert verdict(judge(deadline=(NOW - timedelta(minutes=1, seconds=1)).isoformat())) == (True, "dead")


@pytest.mark.parametrize("deadline", ["", "soon", "2029-01-01T00:00:00"])
def test_a_deadline_that_tells_no_time_is_never_past(deadline: str) -> None:
    assert verdict(judge(deadline=deadline)) == (False, "no-deadline")


def test_a_run_that_was_deleted_is_dead_where_it_was_this_hosts() -> None:
    assert verdict(judge(Word.NONE)) == (True, "dead")
    assert verdict(judge(Word.NONE, host="elsewhere")) == (False, "anothers")
    assert verdict(judge(Word.NONE, host="")) == (False, "anothers")


def test_what_was_built_without_prefect_goes_by_its_deadline() -> None:
    assert verdict(judge(None, run="")) == (True, "no-flow-run")
    assert verdict(judge(None, run="", deadline="2030-01-02T00:00:00+00:00")) == (False, "not-overdue")


@pytest.mark.parametrize("run", [RUN, ""])
def test_the_lease_of_a_living_process_outweighs_all_else(run: str) -> None:
    assert verdict(judge(run=run, held=(container_name(DEAD),))) == (False, "lease")
    assert judge(run=run, held=(container_name(LIVE),)).reaped


def _image(*tags: str, age: timedelta = timedelta(days=1), created: str = "") -> ImageInfo:
    made = created or str(int((NOW - age).timestamp()))
    return ImageInfo(ImageID("sha256:1"), tags, (), {}, 1, (), made)


def _names(*images: ImageInfo, held: tuple[str, ...] = ()) -> dict[str, tuple[bool, str]]:
    builder = ContainerInfo(ContainerID("c"), container_name(LIVE), "created", {})
    return {found.name: verdict(found) for found in judge_names(images, [builder], held=held, now=NOW)}


def test_only_the_name_of_a_build_without_a_builder_goes() -> None:
    dead, live = reference_under_construction(DEAD), reference_under_construction(LIVE)
    assert _names(_image(dead, "team/app:1", live), _image("debian:trixie")) == {
        dead: (True, "no-builder"),
        live: (False, "has-builder"),
    }


def test_a_name_that_a_living_process_holds_a_lease_for_stays() -> None:
    dead = reference_under_construction(DEAD)
    assert _names(_image(dead), held=(container_name(DEAD),)) == {dead: (False, "lease")}


def test_the_name_of_a_young_image_stays() -> None:
    dead = reference_under_construction(DEAD)
    assert _names(_image(dead, age=timedelta(minutes=1))) == {dead: (False, "not-overdue")}
    assert _names(_image(dead, age=timedelta(minutes=1, seconds=1))) == {dead: (True, "no-builder")}
    for created in ("2029-01-01T00:00:00Z", "-1", "0.5"):
        assert _names(_image(dead, created=created)) == {dead: (False, "no-age")}


@pytest.mark.parametrize(
    "name",
    [
        "caisson.local/build:latest",
        "caisson.local/build:0123456789AB",
        f"caisson.local/build:{DEAD}0",
        f"caisson.local/other:{DEAD}",
        f"caisson.local:5000/build:{DEAD}",
        f"evil/caisson.local/build:{DEAD}",
        f"team/app:{DEAD}",
    ],
)
def test_any_other_name_is_not_caissons_to_judge(name: str) -> None:
    assert _names(_image(name)) == {}


def step(
    group: str = "/caisson/80268c1f5ed9-0", *, held: bool | None = False, state: str = "exited", minutes: float = 2
) -> tuple[bool, str] | None:
    container = ContainerInfo(
        ContainerID("c"),
        "optimistic_lamport",
        state,
        {},
        raw={"HostConfig": {"CgroupParent": group}},
        finished=NOW - timedelta(minutes=minutes),
    )
    found = judge_step(container, is_held=lambda path: held if path == group else None, now=NOW)
    return verdict(found) if found else None


def test_the_container_of_a_step_goes_when_it_has_ended_and_no_build_holds_its_group() -> None:
    assert step() == (True, "no-build")
    assert step(state="dead") == (True, "no-build")


def test_the_container_of_a_step_stays_while_a_build_holds_its_group_or_nobody_knows() -> None:
    assert step(held=True) == (False, "group")
    assert step(held=None) == (False, "unknown-group")


def test_the_container_of_a_step_stays_while_it_runs_and_for_a_minute() -> None:
    assert step(state="running") == (False, "not-overdue")
    assert step(minutes=1) == (False, "not-overdue")


@pytest.mark.parametrize("group", ["", "/docker", "/caissons/a", "system.slice"])
def test_a_container_in_another_group_is_no_step_of_ours(group: str) -> None:
    assert step(group) is None


def test_a_builder_is_no_step() -> None:
    labels = {"caisson.build": DEAD}
    raw = {"HostConfig": {"CgroupParent": "/caisson/80268c1f5ed9-0"}}
    builder = ContainerInfo(ContainerID("c"), container_name(DEAD), "exited", labels, raw=raw, finished=NOW)
    assert judge_step(builder, is_held=lambda _: False, now=NOW) is None
