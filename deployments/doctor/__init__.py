"""What is wrong with this host and how to mend it: facts in, items out. Pure; ``gather`` gets the facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from deployments.doctor import disk_checks, engine_checks, host_checks
from deployments.doctor.facts import HostFacts, Item

# In the order in which a host is mended: the engine first, what stands on it later.
CHECKS: tuple[Callable[[HostFacts], Iterator[Item]], ...] = (
    engine_checks.socket,
    engine_checks.engine,
    host_checks.guard,
    engine_checks.cgroups,
    engine_checks.limits,
    engine_checks.capacity,
    engine_checks.builder_image,
    engine_checks.confinement,
    engine_checks.namespaces,
    engine_checks.live_restore,
    engine_checks.builders,
    host_checks.docker_disk,
    disk_checks.pressure,
    disk_checks.monitor,
    disk_checks.prunes,
    host_checks.state_dir,
    host_checks.service,
    host_checks.worker,
    host_checks.gateway,
    host_checks.exposure,
    host_checks.git,
    host_checks.registry,
    host_checks.clock,
)


def diagnose(facts: HostFacts) -> list[Item]:
    """Every check of the host; a check that does not apply says nothing."""
    return [item for check in CHECKS for item in check(facts)]


def has_problem(items: Iterable[Item]) -> bool:
    """Whether anything would make a build fail, or give away what it should not."""
    return any(item.status == "problem" for item in items)
