"""The audit's rules on what looks after the disk: monitor and prune, their thresholds, Caisson's own files. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from caisson.audit.facts import CareFacts
from caisson.audit.rules import Found, Rule, when
from caisson.disk_limits import Zone, describe_missing
from caisson.durations import format_age
from caisson.file_facts import FileFacts
from caisson.sizes import format_size

MONITOR, PRUNE, AUDIT = "monitor-disk", "prune-images", "audit-host"
_LEAST_SILENCE = timedelta(minutes=10)
_SILENT_INTERVALS = 3
_OVERDUE_INTERVALS = 2


def most_silence(seconds: int) -> timedelta:
    """How long after its last look a monitor of that interval counts as alive."""
    return max(_LEAST_SILENCE, _SILENT_INTERVALS * timedelta(seconds=seconds))


def _scheduled(flow: str, setting: str, seconds: Callable[[CareFacts], int]) -> Callable[[CareFacts], Found]:
    def check(facts: CareFacts) -> Found:
        if not seconds(facts):
            return Found("fail", f"{setting} is 0")
        if facts.schedules is None:
            return Found("unknown", "Prefect could not be asked")
        found = facts.schedules.get(flow)
        if found is None:
            return Found("fail", f"there is no deployment {flow}/{facts.settings.host_name}")
        if found.paused or not found.active:
            return Found("fail", "its schedule is paused or gone in Prefect")
        return Found("pass", f"{found.active} active schedule{'s' if found.active > 1 else ''}")

    return check


def monitor_alive(facts: CareFacts) -> Found:
    if not facts.settings.monitor_seconds:
        return Found("not applicable", "it has no schedule")
    looked = facts.state.looked
    if looked is None:
        return Found("unknown", "it has not looked yet")
    age = facts.now - looked
    alive = timedelta() <= age <= most_silence(facts.settings.monitor_seconds)
    return when(
        alive, f"it looked {format_age(max(age, timedelta()))} ago", f"it last looked at {looked:%Y-%m-%d %H:%M} UTC"
    )


def prune_alive(facts: CareFacts) -> Found:
    if not facts.settings.prune_seconds:
        return Found("not applicable", "it has no schedule")
    most = _OVERDUE_INTERVALS * timedelta(seconds=facts.settings.prune_seconds)
    success, expected = facts.state.prune_succeeded, facts.state.prunes_expected
    if facts.state.overdue_told is not None:
        return Found("fail", "the monitor has told that none succeeds any more")
    if success is not None:
        age = facts.now - success
        told = f"the last one ended at {success:%Y-%m-%d %H:%M} UTC"
        return when(timedelta() <= age <= most, told, f"{told}, more than twice its interval ago")
    if expected is not None and facts.now - expected > most:
        return Found("fail", "none has succeeded within twice its interval")
    return Found("unknown", "none has succeeded yet")


def prune_on_pressure(facts: CareFacts) -> Found:
    return when(facts.settings.prune_on_pressure, "on", "CAISSON_PRUNE_ON_PRESSURE is off")


def thresholds(facts: CareFacts) -> Found:
    settings = facts.settings
    try:
        limits = settings.disk_limits
    except ValueError as error:
        return Found("fail", str(error))
    del limits
    return Found("pass", f"low {settings.disk_low}, high {settings.disk_high}, critical {settings.disk_critical}")


def free_space(facts: CareFacts) -> Found:
    usage = facts.disk
    if usage is None:
        return Found("unknown", facts.disk_problem or "Docker's disk could not be looked at")
    try:
        limits = facts.settings.disk_limits
    except ValueError:
        return Found("unknown", "the thresholds can't be used")
    zone = limits.zone(usage)
    if zone >= Zone.HIGH:
        return Found("fail", f"{describe_missing(*limits.missing(usage, zone))} over the threshold")
    enough = usage.free_bytes >= 2 * facts.settings.min_free_bytes
    return when(
        enough, f"{format_size(usage.free_bytes)} free", f"{format_size(usage.free_bytes)} free: near the floor"
    )


def _private(file: Callable[[CareFacts], FileFacts], bits: int) -> Callable[[CareFacts], Found]:
    def check(facts: CareFacts) -> Found:
        found = file(facts)
        if not found.exists:
            if found.error == "it does not exist":
                return Found("not applicable", f"{found.path} is not there yet")
            return Found("unknown", f"{found.path}: {found.error or 'it was not looked at'}")
        if found.kind != "directory":
            return Found("fail", f"{found.path} is a {found.kind}")
        own = found.uid in (0, facts.uid)
        return when(
            own and not found.mode & bits,
            f"mode {found.mode:04o}",
            f"{found.path} has mode {found.mode:04o}, owner {found.uid}",
        )

    return check


CARE_RULES: tuple[Rule[CareFacts], ...] = (
    Rule(
        "monitor-scheduled",
        "Docker's disk is looked at on a schedule",
        "medium",
        "ADR 0018",
        "Set CAISSON_MONITOR_SECONDS, start `caisson up`, and resume the schedule of monitor-disk in Prefect.",
        _scheduled(MONITOR, "CAISSON_MONITOR_SECONDS", lambda facts: facts.settings.monitor_seconds),
    ),
    Rule(
        "monitor-alive",
        "Docker's disk was looked at just now",
        "medium",
        "ADR 0018",
        "See the runs of monitor-disk in Prefect.",
        monitor_alive,
    ),
    Rule(
        "prune-scheduled",
        "Images are pruned on a schedule",
        "medium",
        "ADR 0026",
        "Set CAISSON_PRUNE_SECONDS, start `caisson up`, and resume the schedule of prune-images in Prefect.",
        _scheduled(PRUNE, "CAISSON_PRUNE_SECONDS", lambda facts: facts.settings.prune_seconds),
    ),
    Rule(
        "prune-alive",
        "A prune has succeeded within twice its interval",
        "medium",
        "ADR 0026",
        "See the runs of prune-images in Prefect.",
        prune_alive,
    ),
    Rule(
        "prune-on-pressure",
        "Pressure on the disk starts a prune",
        "low",
        "ADR 0026",
        "Set CAISSON_PRUNE_ON_PRESSURE=true.",
        prune_on_pressure,
    ),
    Rule(
        "audit-scheduled",
        "This host is audited on a schedule",
        "medium",
        "ADR 0033",
        "Set CAISSON_AUDIT_SECONDS, start `caisson up`, and resume the schedule of audit-host in Prefect.",
        _scheduled(AUDIT, "CAISSON_AUDIT_SECONDS", lambda facts: facts.settings.audit_seconds),
    ),
    Rule(
        "thresholds",
        "The disk's thresholds are in order",
        "medium",
        "kubelet's image garbage collection",
        "Set CAISSON_DISK_LOW, CAISSON_DISK_HIGH and CAISSON_DISK_CRITICAL in that order.",
        thresholds,
    ),
    Rule(
        "free-space",
        "Docker's disk is under no pressure",
        "high",
        "kubelet's image garbage collection",
        "`caisson disk --attribution` shows what holds it; `caisson prune` removes images.",
        free_space,
    ),
    Rule(
        "guard-directory",
        "The guarded sockets' directory is Caisson's alone to write",
        "high",
        "ADR 0012",
        "chmod go-w the directory; it belongs to Caisson's user.",
        _private(lambda facts: facts.guard_dir, 0o022),
    ),
    Rule(
        "state-directory",
        "The state directory is Caisson's alone to write",
        "high",
        "Least privilege",
        "chmod go-rwx the directory; it belongs to Caisson's user.",
        _private(lambda facts: facts.state_dir, 0o022),
    ),
    Rule(
        "state-directory-read",
        "The state directory is Caisson's alone to read",
        "medium",
        "Least privilege",
        "chmod go-rwx the directory; logs and reports are in it.",
        _private(lambda facts: facts.state_dir, 0o055),
    ),
)
