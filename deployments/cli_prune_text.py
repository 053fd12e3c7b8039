"""A prune's plan and what came of it, as lines for a terminal. Pure; a stranger's text comes out harmless."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from caisson.durations import format_ago
from caisson.prune_markdown import MOST_ROWS, plan_summary
from caisson.prune_report import ItemResult, PruneReport
from caisson.prune_report_markdown import item_name, report_summary, round_lines
from caisson.retention.plan import SEVERAL
from caisson.retention.prune_plan import (
    PlanItem,
    PruneBuildCache,
    PrunePlan,
    RemoveContainer,
    RemoveImage,
    RemoveTag,
)
from caisson.sizes import format_size
from caisson.untrusted import clean, shorten
from deployments.cli_table import table_lines

_LONGEST_NAME = 72


def plan_lines(plan: PrunePlan) -> Iterator[str]:
    """What would go, in order, with totals first, and what stays by rule."""
    yield plan_summary(plan)
    yield from (f"  ✗ {clean(problem)}" for problem in plan.problems)
    yield from (f"  left out, since it could not be read: {clean(problem)}" for problem in plan.unread)
    yield from _disk(plan)
    if plan.items:
        yield ""
        yield "What goes, in this order:"
        yield from _indented(_items(plan.items[:MOST_ROWS], plan.planned))
        if len(plan.items) > MOST_ROWS:
            left = sum(item.marginal_bytes for item in plan.items[MOST_ROWS:])
            yield f"  and {len(plan.items) - MOST_ROWS:,} more, about {format_size(left)} (--json shows them all)"
    if plan.kept:
        yield ""
        yield "What stays:"
        yield from _indented(_rules(plan))
    yield ""


def saved_lines(report: PruneReport) -> Iterator[str]:
    """What of a plan that was made before may still go (``not-reached``), and what not any more."""
    counts = report.counts
    size = sum(result.item.marginal_bytes for result in report.results if result.outcome == "not-reached")
    yield (
        f"Of {len(report.results):,} planned {format_ago(report.plan.planned, report.started)}, "
        f"{counts['not-reached']:,} may still go: about {format_size(size)}."
    )
    if report.results:
        rows = ((_STILL[one.outcome], *_named(one.item), *_why_still(one)) for one in report.results[:MOST_ROWS])
        yield from _indented(table_lines(("", "FREES", "WHAT", "RULE", "WHY"), rows))
    if len(report.results) > MOST_ROWS:
        yield f"  and {len(report.results) - MOST_ROWS:,} more (--json shows them all)"
    yield ""


_STILL = {"not-reached": "goes", "kept": "stays", "gone": "gone"}


def result_line(result: ItemResult, number: int, total: int) -> str:
    """One line as an item is done.

    >>> from caisson.retention.prune_plan import RemoveVolume
    >>> item = RemoveVolume("0123456789abcdef", None, "volumes", "anonymous-volume", "unused", 1536)
    >>> result_line(ItemResult(item, "removed", "", "", 0.25), 3, 10)
    '[3/10] removed  volume 0123456789ab, 1.5 KiB, 0.25 s'
    >>> result_line(ItemResult(item, "kept", "in-use", "a container has it"), 3, 10)
    '[3/10] kept     volume 0123456789ab (in-use: a container has it)'
    """
    frees, name = _named(result.item)
    done = f", {frees}, {result.seconds:.2f} s" if result.outcome == "removed" else f" ({': '.join(_why(result))})"
    return f"[{number}/{total}] {result.outcome:<7}  {name}{done}"


def report_lines(report: PruneReport) -> Iterator[str]:
    """What came of it: freed against predicted, and what is still missing."""
    yield report_summary(report)
    change = f"{format_size(abs(report.freed_bytes))} {'more' if report.freed_bytes >= 0 else 'less'}"
    yield (
        f"  freed     {change} are free at {clean(report.usage_after.path)} than before "
        f"({report.freed_inodes:+,} inodes); by the plan {format_size(report.predicted_bytes)}. Others write to it too."
    )
    yield from (f"  {line}" for line in round_lines(report))
    if others := {outcome: count for outcome, count in report.counts.items() if outcome != "removed"}:
        yield f"  besides   {', '.join(f'{count:,} {outcome}' for outcome, count in sorted(others.items()))}"
    if shortfall := report.shortfall:
        yield f"  missing   {shortfall} to the low threshold. What images hold that stay, by rule:"
        order = sorted(report.kept_bytes.items(), key=lambda pair: -pair[1])
        yield from (f"            {format_size(size):>9}  {rule}" for rule, size in order if size)


def _disk(plan: PrunePlan) -> Iterator[str]:
    usage, target = plan.usage, plan.target
    inodes = f", {usage.free_inodes:,} of {usage.total_inodes:,} inodes" if usage.total_inodes else ""
    free = f"{format_size(usage.free_bytes)} of {format_size(usage.usable_bytes)}"
    yield f"  free      {free}{inodes} at {clean(usage.path)}"
    if target is None:
        yield "  pressure  none: only what has had its time goes"
        return
    wanted = f" and {target.free_inodes:,} inodes" if usage.total_inodes and target.free_inodes else ""
    yield f"  pressure  until {format_size(target.free_bytes)}{wanted} are free"


def _items(items: Sequence[PlanItem], now: datetime) -> Iterator[str]:
    rows = (
        (str(number), *_named(item), format_ago(_last_use(item), now), item.rule, clean(item.reason))
        for number, item in enumerate(items, start=1)
    )
    return table_lines(("", "FREES", "WHAT", "LAST USE", "RULE", "WHY"), rows)


def _named(item: PlanItem) -> tuple[str, str]:
    return format_size(item.marginal_bytes), shorten(clean(item_name(item)), _LONGEST_NAME)


def _why(result: ItemResult) -> tuple[str, str]:
    return clean(result.rule), clean(result.reason)


def _why_still(result: ItemResult) -> tuple[str, str]:
    if result.outcome == "not-reached":
        return result.item.rule, clean(result.item.reason)
    return _why(result)


def _last_use(item: PlanItem) -> datetime | None:
    match item:
        case RemoveImage() | RemoveTag():
            return item.image.last_used
        case RemoveContainer():
            return item.finished
        case PruneBuildCache():
            return None
        case _:
            return item.last_used


def _rules(plan: PrunePlan) -> Iterator[str]:
    counts = Counter(item.rule for item in plan.kept)
    order = sorted(counts, key=lambda rule: (-plan.kept_bytes.get(rule, 0), rule))
    rows = [(rule, f"{counts[rule]:,}", format_size(plan.kept_bytes.get(rule, 0))) for rule in order]
    if shared := plan.kept_bytes.get(SEVERAL, 0):
        rows.append(("several", "", format_size(shared)))
    return table_lines(("KEPT BY", "IMAGES", "ONLY THESE HOLD"), rows)


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
