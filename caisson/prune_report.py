"""``PruneReport``: what came of a plan, item by item, with what the file system says was freed. Values only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AwareDatetime, TypeAdapter

from caisson.disk import DiskUsage
from caisson.disk_limits import describe_missing
from caisson.retention.prune_plan import PlanItem, PrunePlan, has_room, missing_to

Outcome = Literal["removed", "kept", "gone", "failed", "not-needed", "not-reached"]
"""``kept``: it may not go any more, or the engine would not without force. ``gone``: somebody else removed it.
``not-needed``: there was room before its turn. ``not-reached``: the prune ended before its turn."""

Ending = Literal["planned", "done", "target-reached", "short", "stopped"]
"""``planned``: a dry run. ``short``: all is done, and the low threshold was not reached."""

VERSION = 1


@dataclass(frozen=True)
class ItemResult:
    """What came of one item; ``rule`` and ``reason`` say why, ``seconds`` how long the engine took.

    ``round`` is the number of the plan that it was in, from 1.
    """

    item: PlanItem
    outcome: Outcome
    rule: str
    reason: str
    seconds: float = 0.0
    round: int = 1


@dataclass(frozen=True)
class PruneRound:
    """A plan that was made on the way, where all of the last was done and the low threshold not reached.

    ``usage`` is the disk when it was made. The plan as a whole is a file of its own (``caisson.prune_files``).
    """

    planned: AwareDatetime
    usage: DiskUsage
    items: int
    reclaimable_bytes: int
    reclaimable_inodes: int
    kept_bytes: Mapping[str, int]

    @classmethod
    def of(cls, plan: PrunePlan) -> PruneRound:
        """What the report keeps of a plan."""
        return cls(
            planned=plan.planned,
            usage=plan.usage,
            items=len(plan.items),
            reclaimable_bytes=plan.reclaimable_bytes,
            reclaimable_inodes=plan.reclaimable_inodes,
            kept_bytes=plan.kept_bytes,
        )


@dataclass(frozen=True)
class PruneReport:
    """A whole prune: its first plan, what came of the items of all its plans, and what is told of the further ones.

    ``freed_bytes`` and ``freed_inodes`` are ``statvfs`` before and after, so others' work is in them.
    ``problem`` is why it was stopped, in a sentence; empty where it came to its end.
    """

    id: str
    plan: PrunePlan
    results: tuple[ItemResult, ...]
    started: AwareDatetime
    ended: AwareDatetime
    trigger: str
    dry_run: bool
    freed_bytes: int
    freed_inodes: int
    usage_after: DiskUsage
    ending: Ending
    problem: str = ""
    more_rounds: tuple[PruneRound, ...] = ()

    @property
    def kept_bytes(self) -> Mapping[str, int]:
        """What images hold that stay, by rule: by the last plan."""
        return self.more_rounds[-1].kept_bytes if self.more_rounds else self.plan.kept_bytes

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """Items by what came of them."""
        return Counter(result.outcome for result in self.results)

    @property
    def reaches_target(self) -> bool:
        """Whether there is room now; always without pressure."""
        return self.plan.target is None or has_room(self.usage_after, self.plan.target)

    @property
    def shortfall(self) -> str:
        """What is still missing to the low threshold, such as ``2 GiB and 1,200 inodes``; empty where nothing is."""
        if self.plan.target is None or self.reaches_target:
            return ""
        return describe_missing(*missing_to(self.plan.target, self.usage_after))

    @property
    def predicted_bytes(self) -> int:
        """What the removed items were to free by the plan."""
        return sum(result.item.marginal_bytes for result in self.results if result.outcome == "removed")


_ADAPTER = TypeAdapter(PruneReport)


def report_to_json(report: PruneReport) -> str:
    """The report as text with keys in order."""
    return (
        json.dumps({"version": VERSION, **_ADAPTER.dump_python(report, mode="json")}, indent=1, sort_keys=True) + "\n"
    )


def report_from_json(text: str | bytes) -> PruneReport:
    """The report that was written; raises ``ValueError``."""
    value: Any = json.loads(text)
    if not isinstance(value, dict) or value.pop("version", None) != VERSION:
        raise ValueError(f"version: this is no report of version {VERSION}")
    return _ADAPTER.validate_python(value)
