"""What came of a prune as people read it: markdown for Prefect's artifact page. Pure.

What went comes first, then what stayed against the plan, then what is still missing and what holds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from caisson.durations import format_age
from caisson.engine import short_id
from caisson.markdown_table import markdown_table
from caisson.prune_markdown import MOST_ROWS, render_plan
from caisson.prune_report import ItemResult, Outcome, PruneReport
from caisson.retention.prune_plan import PlanItem, PruneBuildCache, RemoveContainer, RemoveImage, RemoveTag
from caisson.sizes import format_size
from caisson.untrusted import code, markdown

_ORDER: tuple[Outcome, ...] = ("removed", "failed", "kept", "not-reached", "gone", "not-needed")
_WORDS = {
    "removed": "removed",
    "failed": "failed",
    "kept": "kept against the plan",
    "not-reached": "not reached",
    "gone": "already gone",
    "not-needed": "not needed any more",
}


def render_report(report: PruneReport) -> str:
    """The report as markdown; of a dry run the plan."""
    if report.dry_run:
        return render_plan(report.plan)
    sections = [f"## {markdown(report_summary(report))}", *_numbers(report), *_shortfall(report), *_results(report)]
    return "\n\n".join(sections) + "\n"


def report_summary(report: PruneReport) -> str:
    """One plain sentence; holds nothing but text."""
    counts = report.counts
    removed = counts.get("removed", 0)
    rounds = f" in {len(report.more_rounds) + 1} rounds" if report.more_rounds else ""
    freed = format_size(max(0, report.freed_bytes))
    words = [f"Removed {removed:,} of {len(report.results):,} planned{rounds}: {freed} freed"]
    if shortfall := report.shortfall:
        words.append(f"{shortfall} to the low threshold still missing")
    if report.problem:
        words.append(f"it ended early: {report.problem.rstrip('.')}")
    return f"{'; '.join(words)}."


def item_name(item: PlanItem) -> str:
    """What an item removes, in plain words.

    >>> from caisson.engine import ContainerID, ImageID
    >>> item_name(RemoveContainer(ContainerID("c1"), "old", ImageID("sha256:1"), None, "containers", "", "", 0))
    'container old'
    """
    match item:
        case RemoveImage():
            names = item.image.tags or item.image.registry_digests
            return f"image {short_id(item.image.id)} ({', '.join(names) if names else 'untagged'})"
        case RemoveTag():
            return f"tag {item.reference}"
        case RemoveContainer():
            return f"container {item.name}"
        case PruneBuildCache():
            return f"build cache beyond {format_size(item.keep_bytes)}"
        case _:
            return f"volume {item.name[:12]}"


def _numbers(report: PruneReport) -> Iterator[str]:
    seconds = (report.ended - report.started).total_seconds()
    lines = [
        f"Started by {markdown(report.trigger)} at {report.started:%Y-%m-%d %H:%M:%S} UTC, {seconds:.1f} s.",
        f"By the plan what was removed held {format_size(report.predicted_bytes)}; by the file system "
        f"{code(report.usage_after.path)} {_change(report)}. Builds and others write to it, too.",
    ]
    lines += [f"{markdown(line)}." for line in round_lines(report)]
    yield "\n".join(f"* {line}" for line in lines)


def round_lines(report: PruneReport) -> Iterator[str]:
    """One line for each plan that was made on the way; no full stop."""
    for number, one in enumerate(report.more_rounds, start=2):
        removed = sum(result.outcome == "removed" for result in report.results if result.round == number)
        yield (
            f"Round {number}: {format_size(one.usage.free_bytes)} and {one.usage.free_inodes:,} inodes were free, "
            f"too little, so it was planned anew; {removed:,} of {one.items:,} removed"
        )


def _change(report: PruneReport) -> str:
    size, more = format_size(abs(report.freed_bytes)), "more" if report.freed_bytes >= 0 else "less"
    return f"has {size} {more} free than before ({report.freed_inodes:+,} inodes)"


def _shortfall(report: PruneReport) -> Iterator[str]:
    if not (shortfall := report.shortfall):
        return
    yield f"**The low threshold was not reached: {shortfall} are missing.** What images hold that stay, by rule:"
    order = sorted(report.kept_bytes.items(), key=lambda pair: -pair[1])
    yield markdown_table(["Kept by", "Bytes"], [[code(rule), format_size(size)] for rule, size in order if size])


def _results(report: PruneReport) -> Iterator[str]:
    counts = report.counts
    shown = [outcome for outcome in _ORDER if counts.get(outcome)]
    yield ", ".join(f"{counts[outcome]:,} {_WORDS[outcome]}" for outcome in shown) or "There was nothing to remove."
    for outcome in shown:
        found = [result for result in report.results if result.outcome == outcome]
        yield f"### {_WORDS[outcome].capitalize()}: {len(found):,}"
        yield markdown_table(["What", "Planned to free", "Took", "Rule", "Why"], _rows(found[:MOST_ROWS], report))
        if len(found) > MOST_ROWS:
            yield f"{len(found) - MOST_ROWS:,} more are in the JSON only."


def _rows(results: Sequence[ItemResult], report: PruneReport) -> Iterator[list[str]]:
    for result in results:
        used = result.item.image.last_used if isinstance(result.item, RemoveImage) else None
        idle = f", last used {format_age(report.started - used)} ago" if used and used < report.started else ""
        yield [
            code(item_name(result.item)) + idle,
            format_size(result.item.marginal_bytes),
            f"{result.seconds:.2f} s" if result.seconds else "–",
            code(result.rule) if result.rule else "–",
            markdown(result.reason),
        ]
