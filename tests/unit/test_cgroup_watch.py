"""What the watch makes of the kernel's files: a tree like the kernel's, in both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from caisson.cgroup_watch import CgroupWatch
from caisson.cgroups import Cgroup


class Tree:
    """A group ``/caisson/a-0`` with the builder's ``c0ffee`` in it, as files that a test writes."""

    def __init__(self, root: Path, version: int) -> None:
        self.version = version
        memory, pids = (root / "memory", root / "pids") if version == 1 else (root, root)
        self.group = Cgroup(version, "/caisson/a-0", memory, pids, pids)
        self.builder = Cgroup(version, "/caisson/a-0/c0ffee", memory / "c0ffee", pids / "c0ffee", pids / "c0ffee")
        for name in ("", "c0ffee"):
            self.count(name)

    def count(self, name: str, *, oom_kills: int = 0, refused: int = 0) -> None:
        file = "memory.oom_control" if self.version == 1 else "memory.events"
        for directory in (self.group.memory / name, self.group.pids / name):
            directory.mkdir(parents=True, exist_ok=True)
        (self.group.memory / name / file).write_text(f"under_oom 0\noom_kill {oom_kills}\n")
        (self.group.pids / name / "pids.events").write_text(f"max {refused}\n")

    def remove(self, name: str) -> None:
        for directory in {self.group.memory / name, self.group.pids / name}:
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return Tree(tmp_path, request.param)


def test_the_builders_own_group_is_no_step(tree: Tree) -> None:
    (tree.builder.memory / "below").mkdir()
    with CgroupWatch(tree.group, tree.builder) as watch:
        assert watch.evidence().nested == ()
        tree.count("buildkit/step1")
        tree.count("c0ffee1")
        assert set(watch.evidence().nested) == {"buildkit/step1", "c0ffee1"}


def test_groups_below_a_builder_that_holds_its_steps_itself_are_steps(tree: Tree) -> None:
    with CgroupWatch(tree.builder, tree.builder) as watch:
        (tree.builder.memory / "step").mkdir()
        assert watch.evidence().nested == ("step",)


@pytest.mark.parametrize("where", ["", "c0ffee", "buildkit/step"])
def test_only_what_came_after_the_start_is_counted_wherever_the_kernel_counts_it(tree: Tree, where: str) -> None:
    tree.count("", oom_kills=5, refused=50)
    tree.count("c0ffee", oom_kills=2, refused=20)
    with CgroupWatch(tree.group, tree.builder) as watch:
        assert (watch.evidence().oom_kills, watch.evidence().pids_refused) == (0, 0)
        before = {"": (5, 50), "c0ffee": (2, 20)}.get(where, (0, 0))
        tree.count(where, oom_kills=before[0] + 1, refused=before[1] + 4)
        assert (watch.evidence().oom_kills, watch.evidence().pids_refused) == (1, 4)


def test_what_version_2_counts_in_a_step_and_above_it_is_counted_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 2)
    with CgroupWatch(tree.group, tree.builder) as watch:
        tree.count("", oom_kills=1, refused=4)
        tree.count("buildkit/step", oom_kills=1, refused=4)
        assert (watch.evidence().oom_kills, watch.evidence().pids_refused) == (1, 4)


def test_what_a_step_counted_is_kept_when_its_group_is_gone(tree: Tree) -> None:
    with CgroupWatch(tree.group, tree.builder) as watch:
        tree.count("step", oom_kills=1, refused=7)
        watch.evidence()
        tree.remove("step")
        assert watch.evidence() == watch.evidence()
        assert (watch.evidence().oom_kills, watch.evidence().pids_refused) == (1, 7)
        assert watch.evidence().nested == ("step",)


def test_what_came_before_a_step_began_can_be_left_out(tree: Tree) -> None:
    times = iter([100.0, 110.0, 120.0])
    watch = CgroupWatch(tree.group, tree.builder, wall=lambda: next(times))
    watch.evidence()
    tree.count("step", oom_kills=1, refused=7)
    watch.evidence()
    tree.remove("step")
    tree.count("next", oom_kills=2)
    found = [watch.evidence(since=since) for since in (None, 99.0, 109.0, 110.0, 115.0, 120.0)]
    counted = [(evidence.oom_kills, evidence.pids_refused) for evidence in found]
    assert counted == [(3, 7), (3, 7), (3, 7), (2, 0), (2, 0), (0, 0)]
