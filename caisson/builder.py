"""The builder container: started, held to its deadline, removed whatever happens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from caisson.cgroups import Cgroup, KernelLimits, find_cgroup, read_limits
from caisson.engine import ContainerID, ContainerInfo, Engine
from caisson.errors import BuildCancelled, BuildTimedOut, CaissonError, EngineLost, EngineRefused
from caisson.plan import (
    LABEL_BUILD,
    LABEL_DEADLINE,
    LABEL_FLOW_RUN,
    container_name,
    reference_under_construction,
)


@dataclass(frozen=True)
class StartedBuilder:
    """A builder that runs: its ID, what inspect says of it, its groups and limits as the kernel tells them.

    ``cgroup`` is the group whose limits hold builder and RUN steps together, ``own`` that of the container alone; they
    are one where the build has no group of Caisson's.
    """

    id: ContainerID
    inspected: Mapping[str, Any]
    cgroup: Cgroup | None
    own: Cgroup | None
    limits: KernelLimits | None


def start_builder(engine: Engine, container: ContainerID, group: Cgroup | None = None) -> StartedBuilder:
    """Start a created builder and read back what holds for it; raises ``EngineLost`` when it ended at once.

    ``group`` is the one that it was meant to be put into; where the kernel has it elsewhere, its own counts.
    """
    engine.start_container(container)
    found = engine.inspect_container(container)
    if found is None or found.state != "running":
        raise EngineLost("The builder ended as soon as it was started.", hint="Try `caisson doctor`.")
    own = find_cgroup(found.pid)
    if own is not None and found.id not in own.path:
        own = None  # the process of that number is another one's: the engine is not on this host
    cgroup = group if group and own and group.holds(own) else own
    return StartedBuilder(container, found.raw, cgroup, own, read_limits(cgroup) if cgroup else None)


class BuildTimeout:
    """Removes the builder when the time is up, which ends whatever step runs in it; a context manager.

    ``seconds`` is the timeout of the whole build, ``left`` what is left of it; with nothing left, it goes at once. This
    is a thread of the flow's process. The builder's own main process ends a little later, should that be dead.
    """

    def __init__(self, engine: Engine, container: ContainerID, *, seconds: float, left: float) -> None:
        self._engine, self._container, self._seconds = engine, container, seconds
        self._timer = threading.Timer(left, self._expire)
        self._timer.daemon = True
        self.expired = False

    def __enter__(self) -> BuildTimeout:
        self._timer.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        try:
            self._engine.remove_container(self._container)
        except CaissonError:
            # The flow's own clean-up tries again, and reports.
            return

    def explain(self, error: CaissonError) -> CaissonError:
        """What a failed step means: a step that lost its builder was timed out, or the builder removed by others.

        A builder that ended with nobody's asking the engine for it (killed by the kernel, say) is lost, not cancelled.
        """
        if self.expired:
            return timed_out(self._seconds)
        if isinstance(error, EngineLost) and error.details.get("builder_gone") and self._was_asked_for():
            return BuildCancelled(
                "The builder was removed from outside while the build ran.",
                hint="If nobody meant to cancel the build, see what else removes containers on its host.",
            )
        return error

    def _was_asked_for(self) -> bool:
        """Whether somebody had the engine kill the builder: of that alone there is an event."""
        try:
            events = self._engine.events()
        except CaissonError:
            return False
        return any(event.action == "kill" and event.subject == self._container for event in events)


def timed_out(seconds: float) -> BuildTimedOut:
    """The failure of a build that took longer than these seconds."""
    return BuildTimedOut(
        f"The build took longer than its timeout of {_minutes(seconds)}.",
        hint="Raise limits.timeout_minutes, or make the build faster.",
        details={"timeout_seconds": seconds},
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def find_builders(engine: Engine, *, build_id: str = "", flow_run_id: str = "") -> list[ContainerInfo]:
    """Builders on this engine, in any state; all of them, or those of one build or flow run.

    A container has the labels of its image as well, and a Dockerfile can set any: so its name must say the same.
    """
    labels: dict[str, str | None] = {LABEL_BUILD: build_id or None}
    if flow_run_id:
        labels[LABEL_FLOW_RUN] = flow_run_id
    return [container for container in engine.list_containers(labels) if is_builder(container)]


def is_builder(container: ContainerInfo) -> bool:
    """Whether Caisson made the container, by its label and its name."""
    build = container.labels.get(LABEL_BUILD)
    return build is not None and container.name == container_name(build)


def read_deadline(builder: ContainerInfo) -> datetime | None:
    """The deadline on a builder's label; None where it tells no time, or one without a zone."""
    try:
        deadline = datetime.fromisoformat(builder.labels.get(LABEL_DEADLINE, ""))
    except ValueError:
        return None
    return deadline if deadline.tzinfo else None


def remove_builders(engine: Engine, builders: list[ContainerInfo]) -> list[str]:
    """Remove them all with what they were building, wait until they are gone; goes on past one that fails.

    Returns their names. Raises ``EngineRefused`` at the end when one could not be removed.
    """
    removed: list[str] = []
    failures: list[CaissonError] = []
    for builder in builders:
        try:
            engine.remove_container(builder.id)
            removed.append(builder.name)
            engine.untag_image(reference_under_construction(builder.labels[LABEL_BUILD]))
        except EngineRefused as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return removed


def remove_references(engine: Engine, references: Iterable[str]) -> list[str]:
    """Take names off their images, which go if they have no other; returns those that are gone.

    One that the engine does not give up, since a container was made of its image, stays.
    """
    removed: list[str] = []
    for reference in references:
        with contextlib.suppress(EngineRefused):
            if engine.untag_image(reference):
                removed.append(reference)
    return removed
