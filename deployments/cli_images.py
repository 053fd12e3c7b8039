"""``caisson images`` and ``caisson why``: what a prune would do with every image, or with one. Needs no service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import typer
from pydantic import TypeAdapter

from caisson.durations import format_ago
from caisson.engine import short_id
from caisson.errors import ImageUnknown
from caisson.image_account import ImageAccount, account_to_json, image_account
from caisson.image_lookup import find_images
from caisson.image_rows import ImageRow, image_rows, of_repositories
from caisson.prune import make_plan
from caisson.prune_host import open_prune_host
from caisson.prune_view import HostView
from caisson.retention.facts import Facts
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import PrunePlan
from caisson.settings import Settings
from caisson.sizes import format_size
from caisson.snapshot import ImageState, Snapshot
from caisson.untrusted import clean, shorten
from deployments.cli_plan import disk_read
from deployments.cli_table import table_lines

_ROWS = TypeAdapter(list[ImageRow])
_MOST_SHARING = 5
_LONGEST = 60


@dataclass(frozen=True)
class Look:
    """One look at the host: what is on it, what a prune would do, and the same image by image."""

    snapshot: Snapshot
    plan: PrunePlan
    rows: list[ImageRow]


def look(settings: Settings, policy: RetentionPolicy) -> Look:
    """Look and plan as a prune does; raises ``CaissonError``. Nothing changes but what the ledger knows of uses."""
    with open_prune_host(settings) as host:
        view = HostView(host, policy)
        with disk_read():
            plan = make_plan(view, settings.disk_limits)
        return Look(view.snapshot, plan, image_rows(plan, host.ledger.images.known(layers=False)))


def show_images(settings: Settings, policy: RetentionPolicy, *, repository: str, as_json: bool) -> None:
    """Every image, those that hold most by themselves first; raises ``CaissonError``."""
    found = look(settings, policy)
    rows = list(of_repositories(found.rows, repository)) if repository else found.rows
    if as_json:
        typer.echo(_ROWS.dump_json(rows, indent=2).decode())
        return
    for line in image_lines(rows, found.plan.planned):
        typer.echo(line)


def image_lines(rows: list[ImageRow], now: datetime) -> Iterator[str]:
    """The list for people."""
    if not rows:
        yield "There are no such images on this host."
        return
    header = ("IMAGE", "FREES", "SIZE", "LAST USE", "KNOWN BY", "", "RULE", "NAMES")
    yield from table_lines(header, (_cells(row, now) for row in rows))
    going = [row for row in rows if row.decision == "remove"]
    size = format_size(sum(row.marginal_bytes for row in going))
    counted = "1 image" if len(rows) == 1 else f"{len(rows):,} images"
    yield f"{counted}, of which a prune now would remove {len(going):,}: about {size}."


def _cells(row: ImageRow, now: datetime) -> tuple[str, ...]:
    return (
        short_id(row.id),
        format_size(row.marginal_bytes),
        format_size(row.size),
        format_ago(row.last_used, now),
        shorten(clean(row.last_use), 40),
        "goes" if row.decision == "remove" else "stays",
        row.rule,
        _names(row.tags or row.registry_digests) + (f"; goes: {_names(row.going_tags)}" if row.going_tags else ""),
    )


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(shorten(clean(name), _LONGEST) for name in names) or "untagged"


def show_why(settings: Settings, policy: RetentionPolicy, image: str, *, as_json: bool) -> None:
    """All about one image; raises ``ImageUnknown`` and other ``CaissonError``."""
    found = look(settings, policy)
    facts = Facts(found.snapshot, policy, found.plan.planned)
    one = _find(facts, image)
    row = next(row for row in found.rows if row.id == one.id)
    going = {row.id for row in found.rows if row.decision == "remove"}
    account = image_account(facts, row, going)
    if as_json:
        typer.echo(account_to_json(account))
        return
    for line in account_lines(account, found.plan.planned):
        typer.echo(line)


def _find(facts: Facts, text: str) -> ImageState:
    found = find_images(facts, text)
    if not found:
        raise ImageUnknown(f"There is no image {text[:200]!r} on this host.", hint="`caisson images` lists them.")
    if len(found) > 1:
        names = ", ".join(f"{short_id(image.id)} ({_names(tuple(sorted(image.tags)))})" for image in found[:5])
        raise ImageUnknown(f"{len(found)} images can be meant by {text[:200]!r}.", hint=f"Say which: {names}.")
    return found[0]


def account_lines(account: ImageAccount, now: datetime) -> Iterator[str]:
    """All about one image, for people."""
    row = account.image
    yield f"{row.id}  {_names(row.tags or row.registry_digests)}"
    yield f"  size      {format_size(row.size)}, of which {format_size(account.alone_bytes)} are in no other image"
    yield f"  seen      first {_moment(row.first_seen, now)}"
    yield f"  last use  {_moment(row.last_used, now)}: {clean(row.last_use)}"
    verdict = "would be removed" if row.decision == "remove" else "stays"
    yield f"  now       {verdict} ({row.rule}): {clean(row.reason)}"
    yield f"  frees     {format_size(row.marginal_bytes)} {_FREES[row.decision]}"
    if row.going_tags:
        yield f"  names     a prune now would take away: {_names(row.going_tags)}"
    yield from _labelled("kept by", [f"{reason.rule}: {clean(reason.reason)}" for reason in account.protections])
    yield f"  its time  {clean(account.expiry)}"
    yield f"  goes      {_goes(account)}"
    yield f"  pressure  {_evictable(account, now)}"
    yield from _labelled("shares", _sharing(account))


_FREES = {"remove": "after what goes before it", "keep": "were it removed after all that would go now"}


def _labelled(label: str, lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines or ["nothing"]):
        yield f"  {'' if number else label:<8}  {line}"


def _goes(account: ImageAccount) -> str:
    if account.image.decision == "remove":
        return "with the next prune"
    if account.goes is None:
        return f"no time can be told: {clean(account.stays)}"
    return f"at {account.goes:%Y-%m-%d %H:%M} UTC at the earliest, if nothing changes"


def _evictable(account: ImageAccount, now: datetime) -> str:
    if account.evictable is None:
        return "stays, also when the disk is full"
    if account.evictable <= now:
        return "may go when the disk is full"
    return f"may go when the disk is full, from {account.evictable:%Y-%m-%d %H:%M} UTC"


def _sharing(account: ImageAccount) -> list[str]:
    lines = [
        f"{format_size(other.size)} in {other.layers} {'layer' if other.layers == 1 else 'layers'} with "
        f"{short_id(other.id)} ({_names(other.names)})"
        for other in account.shared_with[:_MOST_SHARING]
    ]
    more = len(account.shared_with) - _MOST_SHARING
    return [*lines, *([f"and with {more} more at least"] if more > 0 else [])]


def _moment(date: datetime | None, now: datetime) -> str:
    return "not known" if date is None else f"{date:%Y-%m-%d %H:%M} UTC, {format_ago(date, now)}"
