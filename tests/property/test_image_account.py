"""What is told of an image is what a prune would do: now, and at the moment that is told."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given

from caisson.image_account import image_account
from caisson.image_rows import ImageRow, image_rows
from caisson.retention.facts import Facts
from caisson.retention.plan import plan_prune
from caisson.retention.policy import RetentionPolicy
from caisson.retention.protections import ANCESTOR
from caisson.retention.prune_plan import FreeTarget, RemoveImage
from caisson.snapshot import Snapshot
from tests.property.prune_hosts import NOW, policies, snapshots

EVERYTHING = FreeTarget(free_bytes=1 << 60)


def _rows(snapshot: Snapshot, policy: RetentionPolicy, after: timedelta = timedelta()) -> list[ImageRow]:
    return image_rows(plan_prune(snapshot, policy, NOW + after, pressure=None), {})


def _going(rows: list[ImageRow]) -> set[str]:
    return {row.id for row in rows if row.decision == "remove"}


@given(snapshot=snapshots(), policy=policies())
def test_an_image_goes_at_the_moment_that_is_told_and_not_before(snapshot: Snapshot, policy: RetentionPolicy) -> None:
    rows = _rows(snapshot, policy)
    facts = Facts(snapshot, policy, NOW)
    for row in rows:
        account = image_account(facts, row, _going(rows))
        assert (account.goes == NOW) == (row.decision == "remove")
        if account.goes is None:
            assert account.stays
            assert row.id not in _going(_rows(snapshot, policy, timedelta(days=20_000)))
        elif account.goes > NOW:
            assert row.id in _going(_rows(snapshot, policy, account.goes - NOW))
            assert row.id not in _going(_rows(snapshot, policy, account.goes - NOW - timedelta(microseconds=1)))


@given(snapshot=snapshots(), policy=policies())
def test_what_may_not_go_under_pressure_is_not_evicted_even_for_everything(
    snapshot: Snapshot, policy: RetentionPolicy
) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=EVERYTHING)
    going = {item.image.id for item in plan.items if isinstance(item, RemoveImage)}
    facts = Facts(snapshot, policy, NOW)
    for row in image_rows(plan, {}):
        account = image_account(facts, row, going)
        if row.id in going:
            assert account.evictable == NOW
            assert account.protections == ()
        if account.evictable != NOW:
            assert {reason.rule for reason in account.protections} >= {row.rule}
        assert ANCESTOR not in {reason.rule for reason in account.protections[:-1]}
