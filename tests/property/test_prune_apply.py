"""What a prune does, by the sentences that promise something of it, on random hosts where others work meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from caisson.disk import DiskUsage
from caisson.errors import CaissonError, EngineRefused, EngineUnreachable
from caisson.prune import apply_plan
from caisson.prune_report import PruneReport
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import PrunePlan, RemoveImage, RemoveTag, has_room
from tests.fake_engine import READS, REMOVALS
from tests.property.prune_audit import Auditor
from tests.property.prune_worlds import Act, ImageScript, Script, World, made, scripts
from tests.property.retention_oracle import Oracle

# A prune that looks at the host reads these whatever is known already.
_ALWAYS_READ = ("list_images", "list_containers", "events")


def _apply(world: World, plan: PrunePlan) -> tuple[Auditor, PruneReport]:
    auditor = Auditor(world, plan, world.script.between)
    for act in world.script.late:
        world.act(act)
    return auditor, apply_plan(world.view(), plan, trigger="test", on_result=auditor.result)


def _examples(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Of the default; a profile that takes more takes as many times more here."""
    return settings(max_examples=max(1, number * settings.default.max_examples // 100))


def _old(*tags: str, layer: str = "w") -> ImageScript:
    return ImageScript((layer,), None, False, tags, False, False, True, True, appeared=40, used=40)


def _race(*images: ImageScript, others: tuple[Act | None, ...]) -> Script:
    """Names of team/app go, those of team/web stay."""
    stays = {"keep_last": 0, "max_age": "", "min_age": "0s"}
    policy = RetentionPolicy.model_validate(
        {
            "scope": "host",
            "rules": [{"repositories": "team/web", **stays}],
            "otherwise": {**stays, "max_age": "1d"},
            "allow_unrecoverable": True,
        }
    )
    return Script("overlay2", images, (), (), policy, 20, 20, False, 0, between=others)


_LAST_NAME_TAKEN_BY_OTHERS = _race(
    _old("team/app:1", "team/app:2", "team/web:1"), others=(None, Act("untag", 0, "team/web:1"))
)
_NAME_MOVED_BEFORE_IT_IS_GIVEN_BACK = _race(
    _old("team/app:1", "team/app:2", "team/app:v1"),
    _old("team/web:2", layer="z"),
    others=(Act("tag", 1, "team/app:1"), Act("run", 0, "")),
)


_NAME_MOVED_BEFORE_ITS_TURN = _race(
    _old("team/app:1", "team/app:2", "team/app:v1"),
    _old("team/web:2", layer="z"),
    others=(Act("tag", 1, "team/app:2"),),
)

# The digest is of another repository than the one tag: it goes first, by a call of its own.
_DIGEST_GOES_FIRST = Script(
    "overlay2",
    (ImageScript(("w",), None, False, (), True, False, False, True, appeared=1, used=1),),
    (),
    (),
    RetentionPolicy.model_validate({"scope": "host", "otherwise": {"keep_last": 0, "max_age": "0s", "min_age": "0s"}}),
    20,
    20,
    False,
    0,
    early=(Act("tag", 0, "team/app:1"),),
)


@given(scripts())
@example(_DIGEST_GOES_FIRST)
@example(_LAST_NAME_TAKEN_BY_OTHERS)
@example(_NAME_MOVED_BEFORE_ITS_TURN)
@example(_NAME_MOVED_BEFORE_IT_IS_GIVEN_BACK)
@_examples(500)
def test_whatever_others_do_meanwhile_only_what_may_go_at_that_moment_goes(script: Script) -> None:
    """ "deleted ⊆ plan ⊆ candidates; protected ∩ deleted = ∅; an image in use loses no tag; nothing is deleted once low
    is reached; nothing under high without expiry": asserted at each removal by the auditor."""
    with made(script) as world:
        for act in script.early:
            world.act(act)
        view = world.view()
        plan = world.plan(view)
        truth = world.truth()
        oracle = Oracle(truth, script.policy, truth.taken)
        planned = {item.image.id for item in plan.items if isinstance(item, RemoveImage)}
        assert not any(oracle.is_protected(image) for image in truth.images if image.id in planned)
        auditor = Auditor(world, plan, script.between)
        for act in script.late:
            world.act(act)
        report = apply_plan(view, plan, trigger="test", on_result=auditor.result)
        assert report.problem == ""
        assert [result.item for result in report.results] == list(plan.items)


@given(scripts(others=False))
@_examples(200)
def test_what_was_planned_is_what_is_freed_and_a_second_apply_is_a_no_op(script: Script) -> None:
    """ "freed bytes measured = Σ marginal bytes; apply twice is a no-op; nothing is deleted once low is reached" """
    with made(script) as world:
        plan = world.plan(world.view())
        before = world.host.read_usage()
        auditor, report = _apply(world, plan)
        assert report.freed_bytes == report.predicted_bytes == world.host.read_usage().free_bytes - before.free_bytes
        assert {result.outcome for result in report.results} <= {"removed", "not-needed"}
        assert report.ending == (
            "done" if plan.target is None else "target-reached" if report.reaches_target else "short"
        )
        evicted = [
            result for result in report.results if result.item.phase == "evicted" and result.outcome == "removed"
        ]
        if evicted and plan.target is not None:
            # Without its last one there was no room.
            least = replace(
                report.usage_after, free_bytes=report.usage_after.free_bytes - evicted[-1].item.marginal_bytes
            )
            assert not has_room(replace(least, total_inodes=0), plan.target) or script.inodes
        state, removals = world.state(), auditor.removals
        _, again = _apply(world, plan)
        assert (again.counts["removed"], again.freed_bytes, world.state()) == (0, 0, state)
        assert auditor.removals == removals


@given(scripts(others=False, kinds=("c8d",)), st.integers(2, 4))
@_examples(100)
def test_several_connections_come_to_the_same_end_as_one(script: Script, connections: int) -> None:
    ends = []
    for number in (1, connections):
        with made(script, connections=number) as world:
            plan = world.plan(world.view())
            _, report = _apply(world, plan)
            ends.append((world.state(), report.freed_bytes, report.ending))
    # Inodes are an estimate, so that side by side one more may have gone than had to.
    assert ends[0] == ends[1] or script.inodes


@given(scripts(kinds=("c8d",)), st.integers(2, 4))
@_examples(200)
def test_several_connections_keep_what_one_would_keep(script: Script, connections: int) -> None:
    with made(script, connections=connections) as world:
        _apply(world, world.plan(world.view()))


class _Killed(BaseException):
    """The end of the process, which nothing in it catches."""


@dataclass
class _Fault:
    """What goes wrong at the call of a number: before the engine got it, or when it had done it."""

    at: int
    is_answer_lost: bool
    error: type[BaseException]
    count: int = 0
    calls: list[str] = field(default_factory=list)

    def arm(self, world: World) -> None:
        for engine in world.engines:
            engine.before, engine.after = self._before, self._after

    def _before(self, name: str, argument: str) -> None:
        self.count += 1
        self.calls.append(name)
        if not self.is_answer_lost:
            self._strike()

    def _after(self, name: str, argument: str) -> None:
        if self.is_answer_lost:
            self._strike()

    def _strike(self) -> None:
        if self.count == self.at:
            raise self.error("the engine fails here")


_faults = st.builds(
    _Fault, st.integers(1, 30), st.booleans(), st.sampled_from([_Killed, EngineUnreachable])
) | st.builds(_Fault, st.integers(1, 30), st.just(False), st.just(EngineRefused))


@given(scripts(others=False), _faults, st.booleans())
@_examples(300)
def test_a_crash_at_any_call_and_a_second_run_come_to_the_end_of_one_run(
    script: Script, fault: _Fault, is_planned_anew: bool
) -> None:
    """ "a crash at any step and a second run converge" """
    script = replace(script, inodes=0)
    with made(script) as calm:
        plan = calm.plan(calm.view())
        count = _Fault(0, False, _Killed)
        count.arm(calm)
        apply_plan(calm.view(), plan, trigger="test")
        if is_planned_anew:
            _settle(calm, plan)
        expected = calm.state()
    with made(script) as world:
        plan = world.plan(world.view())
        names = {(image, tag) for tag, image in world.host.tags.items()}
        fault.at = 1 + (fault.at - 1) % max(1, count.count)
        fault.arm(world)
        try:
            apply_plan(world.view(), plan, trigger="test")
        except _Killed:
            pass
        else:
            if fault.error is EngineRefused:
                _assert_names_left(world, plan, names)
        _disarm(world)
        if is_planned_anew:
            _settle(world, plan)
        else:
            apply_plan(world.view(), plan, trigger="test")
        # What got its names back counts as used; and after a time-out the prune went on with others to make room.
        took_others = fault.error is EngineUnreachable and plan.target is not None
        assert world.state() == expected or took_others or "tag_image" in fault.calls


def _assert_names_left(world: World, plan: PrunePlan, names: set[tuple[str, str]]) -> None:
    """What an image that is there has lost is what was planned to go by itself."""
    tags = world.host.tags
    lost = {(image, tag) for image, tag in names if image in world.host.images and tags.get(tag) != image}
    assert lost <= {(item.image.id, item.reference) for item in plan.items if isinstance(item, RemoveTag)}


def _disarm(world: World) -> None:
    for engine in world.engines:
        engine.before = engine.after = lambda _name, _argument: None


def _settle(world: World, first: PrunePlan) -> None:
    """Prune until nothing more goes; under the pressure that there was, though the high threshold may be left."""
    for _ in range(8):
        plan = world.plan(world.view(), force_pressure=first.target is not None)
        if not apply_plan(world.view(), plan, trigger="test").counts["removed"]:
            return
    raise AssertionError("it never ends")


@given(
    scripts(),
    st.sampled_from([*READS, "events", "events", "inspect_image", "read_usage"]),
    st.sampled_from([1, 2, 2, 3, 3, 4, 6, 9]),
    st.booleans(),
    st.sampled_from([EngineRefused, EngineUnreachable]),
)
@example(_race(_old("team/app:1"), _old("team/app:2", layer="z"), others=()), "events", 3, False, EngineRefused)
@_examples(300)
def test_after_a_failed_read_nothing_goes_until_the_whole_is_read_again(
    script: Script, read: str, at: int, is_lasting: bool, error: type[CaissonError]
) -> None:
    """ "A failed read anywhere in the snapshot means that nothing is deleted." """
    with made(script) as world:
        for act in script.early:
            world.act(act)
        failed, looked = False, False
        count = 0

        def called(name: str, argument: str) -> None:
            nonlocal failed, looked, count
            if name == read:
                count += 1
                if count == at or (is_lasting and count > at):
                    failed, looked = True, False
                    raise OSError("no file system") if name == "read_usage" else error("no answer")
            looked = looked or name == "list_images"
            if name in REMOVALS and failed:
                assert looked
                assert not (is_lasting and read in _ALWAYS_READ)

        def read_usage() -> DiskUsage:
            called("read_usage", "")
            return world.host.read_usage()

        world.pruned = replace(world.pruned, read_usage=read_usage)
        for engine in world.engines:
            engine.before = called
        state = world.state()
        try:
            view = world.view()
            plan = world.plan(view)
        except (CaissonError, OSError):
            assert world.state() == state
            return
        for act in script.late:
            world.act(act)
        try:
            report = apply_plan(view, plan, trigger="test")
        except (CaissonError, OSError):
            assert failed
        else:
            is_told = report.problem or report.counts["failed"] or plan.problems or plan.unread
            assert not failed or is_told or read == "read_usage"
            if plan.problems:
                assert world.state() == state or script.late
