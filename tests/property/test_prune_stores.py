"""What a prune does with volumes and build cache, and in the rounds after its first, where others work meanwhile."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hypothesis import example, given, settings

from caisson.prune import MOST_ROUNDS, apply_plan
from caisson.retention.policy import RetentionPolicy
from tests.property.prune_stores import (
    CacheScript,
    StoreAuditor,
    StoreScript,
    StoreWorld,
    VolumeScript,
    store_scripts,
)
from tests.property.prune_worlds import Act, ImageScript, made

_POLICY = RetentionPolicy.model_validate(
    {
        "scope": "host",
        "otherwise": {"keep_last": 0, "max_age": "", "min_age": "0s"},
        "allow_unrecoverable": True,
        "anonymous_volumes_age": "1d",
        "build_cache": {"reserved_space": "40m", "max_used_space": "1g"},
    }
)


def _script(*layers: str, **more: object) -> StoreScript:
    """An image of each of these layers that nobody has used for long, on a host that wants 60 MiB."""
    images = tuple(
        ImageScript((layer,), None, False, (f"team/app:{tag}",), False, False, False, True, appeared=40, used=40)
        for layer, tag in zip(layers, ("1", "2", "v1"), strict=False)
    )
    return StoreScript("overlay2", images, (), (), _POLICY, 20, 60, True, 0, **more)  # type: ignore[arg-type]


_USED_BEFORE_ITS_TURN = _script(
    "w",
    volumes=(VolumeScript("", 1, 40.0, None, True), VolumeScript("", 1, 40.0, None, True)),
    between=(Act("run with volume", 1, ""),),
)
_CACHE_HOLDS_WHAT_GOES = _script("w", "x", "z", cache=tuple(CacheScript(0, False, number) for number in range(3)))
_SHARED_CACHE_IS_LEFT_ALONE = replace(
    _script("z", cache=(CacheScript(0, False, 0), CacheScript(30, False, None)), late=(Act("remove", 0, ""),)),
    policy=_POLICY.model_copy(update={"keep": ("team/app",)}),
)


@given(store_scripts())
@example(_USED_BEFORE_ITS_TURN)
@example(_CACHE_HOLDS_WHAT_GOES)
@example(_SHARED_CACHE_IS_LEFT_ALONE)
@settings(max_examples=settings.default.max_examples * 3)
def test_volumes_cache_and_later_rounds_keep_to_the_promises_of_the_first(script: StoreScript) -> None:
    """ "deleted ⊆ plan of that round; a volume in use, named or not old enough stays; so much cache is never removed;
    nothing goes once low is reached": asserted at each removal by the auditor. And planning comes to an end."""
    with made(script, of=StoreWorld) as world:
        for act in script.early:
            world.act(act)
        view = world.view()
        auditor = StoreAuditor(world, world.plan(view), script.between)
        for act in script.late:
            world.act(act)
        report = apply_plan(
            view, auditor.plan, trigger="test", on_result=auditor.result, replan=partial(auditor.replan, view)
        )
    assert report.problem == ""
    assert len(auditor.rounds) <= MOST_ROUNDS
    assert [result.item for result in report.results] == [item for plan in auditor.rounds for item in plan.items]
    # It is planned anew only where that may help.
    removed_in = {result.round for result in report.results if result.outcome == "removed"}
    assert removed_in >= set(range(1, len(auditor.rounds)))
