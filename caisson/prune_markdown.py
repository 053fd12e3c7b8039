"""A prune's plan as people read it: markdown for Prefect's artifact page and the command line. Pure.

What they look for first comes first: what would go and how much that frees, then why the rest stays. Tags, names and
labels are a stranger's text and go through ``caisson.untrusted``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from caisson.disk_limits import describe_missing
from caisson.durations import format_ago
from caisson.engine import short_id
from caisson.markdown_table import markdown_table
from caisson.retention.prune_plan import (
    KeptImage,
    PlanItem,
    PruneBuildCache,
    PrunePlan,
    RemoveContainer,
    RemoveImage,
    RemoveTag,
    RemoveVolume,
    SeenImage,
)
from caisson.sizes import format_size
from caisson.untrusted import code, markdown

MOST_ROWS = 200
"""Rows of each table; a page of ten thousand would not open."""

_SEVERAL = "several"
_NAMES_SHOWN = 3


def render_plan(plan: PrunePlan) -> str:
    """The plan as markdown: totals, a table of what goes in its order, a table of what stays by rule."""
    sections = [
        f"## {markdown(plan_summary(plan))}",
        *_problems(plan),
        *_disk(plan),
        *_items(plan),
        *_rules(plan),
        *_kept(plan),
    ]
    return "\n\n".join(sections) + "\n"


def plan_summary(plan: PrunePlan) -> str:
    """One plain sentence; for a list of artifacts. Holds nothing but text.

    >>> from datetime import UTC
    >>> from caisson.disk import DiskUsage
    >>> moment = datetime(2026, 1, 1, tzinfo=UTC)
    >>> plan_summary(PrunePlan(moment, moment, DiskUsage("/", 0, 0, 0, 0), None, (), ()))
    'Nothing would be removed.'
    """
    if plan.problems:
        return "Nothing would be removed, since the host could not be read in full."
    if not plan.items:
        ending = "" if plan.reaches_target else f", though {_missing(plan)}"
        return f"Nothing would be removed{ending}."
    counts = Counter[str](item.kind for item in plan.items)
    words = [_counted(counts[kind], one, many) for kind, one, many in _KINDS if counts[kind]]
    ending = "" if plan.reaches_target else f", after which {_missing(plan)}"
    return f"Would remove {_listed(words)}: about {format_size(plan.reclaimable_bytes)}{ending}."


_KINDS = (
    ("image", "image", "images"),
    ("tag", "tag", "tags"),
    ("container", "container", "containers"),
    ("volume", "volume", "volumes"),
    ("build-cache", "", ""),
)


def _counted(count: int, one: str, many: str) -> str:
    return "build cache" if not one else f"{count:,} {one if count == 1 else many}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _missing(plan: PrunePlan) -> str:
    missing = describe_missing(plan.missing_bytes, plan.missing_inodes)
    return f"{missing} to the low threshold would still be missing"


def _problems(plan: PrunePlan) -> Iterator[str]:
    if plan.problems:
        yield "\n".join(f"* ✗ {markdown(problem)}" for problem in plan.problems)
    if plan.unread:
        yield "\n".join(f"* Left out, since it could not be read: {markdown(problem)}" for problem in plan.unread)


def _disk(plan: PrunePlan) -> Iterator[str]:
    usage, target = plan.usage, plan.target
    words = f"{format_size(usage.free_bytes)} of {format_size(usage.usable_bytes)} are free at {code(usage.path)}"
    if usage.total_inodes:
        words += f", and {usage.free_inodes:,} of {usage.total_inodes:,} inodes"
    if target is None:
        yield f"{words}. There is no pressure: only what has had its time goes."
        return
    wanted = format_size(target.free_bytes)
    if usage.total_inodes and target.free_inodes:
        wanted += f" and {target.free_inodes:,} inodes"
    yield f"{words}. Under pressure until {wanted} are free."


def _items(plan: PrunePlan) -> Iterator[str]:
    if not plan.items:
        return
    yield "### What goes, in this order"
    rows = ([str(number), *_row(item, plan.planned)] for number, item in enumerate(plan.items[:MOST_ROWS], start=1))
    yield markdown_table(["", "What", "Names", "Last use", "Frees", "Rule", "Why"], rows)
    if len(plan.items) > MOST_ROWS:
        left = plan.items[MOST_ROWS:]
        size = format_size(sum(item.marginal_bytes for item in left))
        yield f"{len(left):,} more, about {size}, are in the JSON only."
    yield "What an image frees is what no image that is still there holds as well: sizes of images don't add up."


def _row(item: PlanItem, now: datetime) -> list[str]:
    frees = format_size(item.marginal_bytes)
    ending = [frees, code(item.rule), markdown(item.reason)]
    match item:
        case RemoveImage():
            return [f"image {code(short_id(item.image.id))}", _names(item.image), _used(item.image, now), *ending]
        case RemoveTag():
            image = code(short_id(item.image.id))
            return ["tag", f"{code(item.reference)} of {image}, which stays", _used(item.image, now), *ending]
        case RemoveContainer():
            return ["container", code(item.name), format_ago(item.finished, now), *ending]
        case RemoveVolume():
            return ["volume", code(item.name[:12]), format_ago(item.last_used, now), *ending]
        case PruneBuildCache():
            down = f"from {format_size(item.seen_bytes)} down to {format_size(item.keep_bytes)}"
            if item.min_free_bytes:
                down += f", or further until {format_size(item.min_free_bytes)} are free"
            return ["build cache", down, "–", *ending]


def _names(image: SeenImage) -> str:
    names = image.tags or image.registry_digests
    shown = ", ".join(code(name) for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{shown}{more}" if names else "untagged"


def _used(image: SeenImage, now: datetime) -> str:
    return format_ago(image.last_used, now)


def _rules(plan: PrunePlan) -> Iterator[str]:
    if not plan.kept:
        return
    counts = Counter(item.rule for item in plan.kept)
    yield f"### What stays: {_counted(len(plan.kept), 'image', 'images')}"
    order = sorted(counts, key=lambda rule: (-plan.kept_bytes.get(rule, 0), rule))
    rows = [[code(rule), f"{counts[rule]:,}", format_size(plan.kept_bytes.get(rule, 0))] for rule in order]
    if shared := plan.kept_bytes.get(_SEVERAL, 0):
        rows.append(["shared by images of several rules", "", format_size(shared)])
    yield markdown_table(["Kept by", "Images", "Bytes that only these hold"], rows)


def _kept(plan: PrunePlan) -> Iterator[str]:
    kept = sorted(plan.kept, key=lambda item: (-item.marginal_bytes, item.image.id))
    if not kept:
        return
    yield markdown_table(["Image", "Names", "Last use", "Alone holds", "Rule", "Why"], _kept_rows(kept, plan.planned))
    if len(kept) > MOST_ROWS:
        yield f"{len(kept) - MOST_ROWS:,} more are in the JSON only."


def _kept_rows(kept: Sequence[KeptImage], now: datetime) -> Iterator[list[str]]:
    for item in kept[:MOST_ROWS]:
        yield [
            code(short_id(item.image.id)),
            _names(item.image),
            _used(item.image, now),
            format_size(item.marginal_bytes),
            code(item.rule),
            markdown(item.reason),
        ]
