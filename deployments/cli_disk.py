"""``caisson disk``: how full Docker's disks are, when they will be, and what holds them. Needs no service."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import typer

from caisson.disk_attribution import Attribution
from caisson.disk_history import DiskHistory
from caisson.disk_report import DiskReport, FileSystemReport
from caisson.disk_state import read_state
from caisson.disk_watch import look, report
from caisson.settings import Settings
from caisson.sizes import format_size
from caisson.untrusted import clean

_MOST_ROWS = 12


def show_disk(settings: Settings, *, attribution: bool, as_json: bool) -> None:
    """Look once and print; raises ``CaissonError``. What the monitor remembers is read and not changed."""
    made = read_disk(settings, attribution=attribution)
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
        return
    for line in disk_lines(made, all_of_it=attribution):
        typer.echo(line)


def read_disk(settings: Settings, *, attribution: bool = False) -> DiskReport:
    """Look once; raises ``CaissonError``. With ``attribution`` the engine is asked, else it is what was last known."""
    now = datetime.now(UTC)
    found = look(settings, read_state(settings.state_dir), now)
    history = DiskHistory(settings, now)
    made, _ = report(settings, found, history.of, resets=history.prunes())
    if not attribution:
        return made
    used = found.readings[0].usage.used_bytes if len(found.readings) == 1 else None
    return made.model_copy(update={"attribution": _account(settings, used)})


def _account(settings: Settings, used: int | None) -> Attribution:
    from caisson.disk_account import account
    from caisson.docker_engine import DockerEngine

    with DockerEngine(settings.docker_host) as engine:
        return account(engine, settings, used=used)


def disk_lines(made: DiskReport, *, all_of_it: bool) -> Iterator[str]:
    """The report for people."""
    for item in made.file_systems:
        yield from _file_system(item)
    found = made.attribution
    if found is None:
        yield "What holds it: not asked yet; `caisson disk --attribution` asks the engine, which can take minutes."
    elif all_of_it:
        yield from _attribution(found)
    else:
        yield f"What held it at {found.at:%Y-%m-%d %H:%M} UTC: `caisson disk --attribution` asks anew."
        yield from (f"  {line}" for line in _rows(found)[:4])


def _file_system(item: FileSystemReport) -> Iterator[str]:
    yield f"{clean(item.path)}  ({', '.join(item.holds)})"
    yield f"  state     {item.level}{f' since {item.since:%Y-%m-%d %H:%M} UTC' if item.since else ''}"
    size = item.bytes
    yield (
        f"  bytes     {size.used_share:.0%} of {format_size(size.total)} in use, {format_size(size.free)} free; "
        f"high at {format_size(size.high_free)} free, critical at {format_size(size.critical_free)}"
    )
    if item.inodes is None:
        yield "  inodes    no fixed number"
    else:
        yield f"  inodes    {item.inodes.used_share:.0%} of {item.inodes.total:,} in use, {item.inodes.free:,} free"
    if size.missing or (item.inodes is not None and item.inodes.missing):
        inodes = f", {item.inodes.missing:,} inodes" if item.inodes is not None and item.inodes.missing else ""
        yield f"  to free   {format_size(size.missing)}{inodes}"
    yield f"  forecast  {size.forecast}"
    if item.inodes is not None and item.inodes.full_in_seconds is not None:
        yield f"            inodes: {item.inodes.forecast}"


def _attribution(found: Attribution) -> Iterator[str]:
    yield f"What holds it ({found.seconds:.1f} s):"
    yield from (f"  {line}" for line in _rows(found)[:_MOST_ROWS])
    if len(_rows(found)) > _MOST_ROWS:
        yield f"  and {len(_rows(found)) - _MOST_ROWS} more (--json shows them all)"
    yield from (f"  unknown: {clean(words)}" for words in found.unknown)


def _rows(found: Attribution) -> list[str]:
    """Everything that holds bytes, the largest first."""
    rows: list[tuple[int, str]] = [
        (item.exclusive, f"images of {item.name} ({item.images}), and {format_size(item.shared)} shared with others")
        for item in found.repositories
    ]
    rows.append((found.shared_layers, "layers that several repositories hold"))
    rows += [(item.size, f"build cache, {item.type} ({item.records})") for item in found.build_cache]
    rows += [(item.writable, f"container {item.name} ({item.state}), its files") for item in found.containers]
    rows += [(item.logs or 0, f"container {item.name} ({item.state}), its log") for item in found.containers]
    rows += [(item.size or 0, f"volume {item.name} ({item.users} containers)") for item in found.volumes]
    rows.append((found.not_docker or 0, "what Docker does not account for"))
    rows.sort(key=lambda row: -row[0])
    return [f"{format_size(size):>10}  {clean(what)}" for size, what in rows if size]
