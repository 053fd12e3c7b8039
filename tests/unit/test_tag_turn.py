"""Builds of one branch that end in another order than they were asked for: whose the branch's tags are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from caisson.build import Build
from caisson.engine import ImageInfo, PushProgress, RegistryAuth
from caisson.git import Chosen
from caisson.plan import ChosenBuilder
from caisson.request import Builder, BuildRequest
from caisson.settings import Settings
from caisson.spec import make_spec
from tasks.hold_lease import hold_lease
from tasks.push_image import push_image
from tasks.tag_image import tag_image
from tests.fake_engine import FakeEngine
from tests.fake_host import FakeHost

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
URL = "https://git.example.com/team/app.git"


class Registry(FakeEngine):
    """What was pushed, by reference: the image that had the tag as the push began."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self.pushed: dict[str, str] = {}
        self.while_pushing: Callable[[], None] = lambda: None

    def push_image(
        self, reference: str, auth: RegistryAuth | None, *, silence: float = 0
    ) -> Generator[PushProgress, None, str]:
        image = self.host.find(reference)
        assert image is not None
        self.while_pushing()
        self.pushed[reference] = image.id
        return "sha256:digest"
        yield

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name) if name == "push_image" else super().__getattribute__(name)


class Branch:
    """Builds of one branch, each ready for its tags."""

    def __init__(self, state_dir: Path, stack: ExitStack) -> None:
        self.host = FakeHost("overlay2", NOON)
        self.registry = Registry(self.host)
        self._state_dir, self._stack = state_dir, stack

    def build(self, letter: str, *, asked: float, **request: Any) -> tuple[Build, ImageInfo]:
        settings = Settings(_env_file=None, state_dir=self._state_dir)
        fields = {"repository_url": URL, "ref": "main", "image": "r.example.com/team/app", "push": True, **request}
        wanted = BuildRequest.model_validate({"commit": letter * 40, **fields})
        build = self._stack.enter_context(
            Build(
                wanted,
                make_spec(wanted, settings),
                settings,
                self.registry,
                secrets={},
                asked=NOON + timedelta(seconds=asked),
            )
        )
        self._stack.enter_context(hold_lease(build))
        build.record.chosen = ChosenBuilder(Builder.CLASSIC, "", holds_steps=True)
        build.decide_labels(Chosen(letter * 40, "branch", wanted.ref, "", is_default_branch=wanted.ref == "main"))
        image = self.registry.inspect_image(self.host.new_image([(f"layer-{letter}", 1)]))
        assert image is not None
        build.record.image_id = image.id
        return build, image

    def tags(self) -> dict[str, str]:
        return {tag.rpartition(":")[2]: image for tag, image in self.host.tags.items()}


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    with ExitStack() as stack:
        yield Branch(tmp_path, stack)


def test_a_slow_build_of_an_older_push_takes_no_tag_of_the_branch_back(branch: Branch) -> None:
    (slow, old), (quick, new) = branch.build("a", asked=1), branch.build("b", asked=2)
    for build, image in ((quick, new), (slow, old)):
        tag_image.fn(build, image)
        push_image.fn(build)
    tags = branch.tags()
    assert (tags["main"], tags["latest"], tags[f"sha-{'a' * 40}"]) == (new.id, new.id, old.id)
    report = slow.report()
    assert [tag.rule for tag in report.tags] == ["sha", "sha_short"]
    assert report.notes == [
        f"r.example.com/team/app:{tag} is left alone: it is that of a build of the same ref that was asked for later."
        for tag in ("main", "latest")
    ]
    assert branch.registry.pushed["r.example.com/team/app:main"] == new.id
    assert [tag.rule for tag in quick.report().tags] == ["branch", "default_branch", "sha", "sha_short"]


def test_in_their_order_each_moves_the_tags(branch: Branch) -> None:
    for commit, asked in (("a", 1), ("b", 2), ("c", 2)):
        build, image = branch.build(commit, asked=asked)
        tag_image.fn(build, image)
        assert branch.tags()["main"] == image.id
        assert build.record.notes == []


@pytest.mark.parametrize("other", [{"ref": "next"}, {"repository_url": "https://git.example.com/team/other.git"}])
def test_a_tag_that_two_refs_share_is_that_of_the_one_which_ends_last(branch: Branch, other: dict[str, str]) -> None:
    """Which of two branches, or repositories, is to have it, no time can tell."""
    (slow, old), (quick, new) = branch.build("a", asked=1, tags={"raw": ["x"]}), branch.build("b", asked=2, **other)
    quick.tags = slow.tags
    for build, image in ((quick, new), (slow, old)):
        tag_image.fn(build, image)
    assert branch.tags()["x"] == old.id


def test_a_branch_without_a_commit_is_as_new_as_the_look_at_it(branch: Branch) -> None:
    pushed, image = branch.build("a", asked=1)
    tag_image.fn(pushed, image)
    by_hand, newest = branch.build("b", asked=-3600, commit="")
    tag_image.fn(by_hand, newest)
    assert branch.tags()["main"] == newest.id


def test_a_clock_that_was_ahead_keeps_no_tag_for_long(branch: Branch) -> None:
    ahead = (datetime.now(UTC) - NOON + timedelta(days=365)).total_seconds()
    for commit, asked in (("a", ahead), ("b", 1)):
        build, image = branch.build(commit, asked=asked)
        tag_image.fn(build, image)
    assert branch.tags()["main"] == image.id


def test_a_registrys_tag_does_not_go_back_by_a_push_that_was_slow(branch: Branch) -> None:
    (slow, old), (quick, new) = branch.build("a", asked=1), branch.build("b", asked=2)
    tag_image.fn(slow, old)

    def end() -> None:
        tag_image.fn(quick, new)
        push_image.fn(quick)

    later = threading.Thread(target=end)

    def meanwhile() -> None:
        branch.registry.while_pushing = lambda: None
        later.start()
        later.join(0.5)

    branch.registry.while_pushing = meanwhile
    push_image.fn(slow)
    later.join(10)
    assert not later.is_alive()
    for tag in ("main", "latest"):
        assert branch.registry.pushed[f"r.example.com/team/app:{tag}"] == new.id
