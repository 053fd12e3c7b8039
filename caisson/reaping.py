"""What dead builds left on the engine and may be reaped, and what may be a live one's. Pure.

A builder goes when its flow run is dead by Prefect's word *and* its deadline is past; the name of an image under
construction when no builder stands for it any more; the container of a RUN step, which the classic builder removes
itself unless its engine is killed, when no build holds the control group that it ran in. What Prefect was not asked
about, or did not answer, is left alone. So is all that a living process of this host holds a lease for: the kernel's
word.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from caisson.build_group import is_build_group
from caisson.builder import is_builder, read_deadline
from caisson.engine import ContainerInfo, ImageInfo
from caisson.plan import LABEL_FLOW_RUN, LABEL_HOST, build_under_construction, container_name

_OVERDUE = timedelta(minutes=1)
ENDED = frozenset({"exited", "dead"})


class Word(Enum):
    """What Prefect says of a flow run."""

    LIVE = auto()
    """Its state is not final, or a worker executes it."""
    DEAD = auto()
    """Its state is final."""
    NONE = auto()
    """There is no such run."""


@dataclass(frozen=True)
class Reaping:
    """The verdict on one leftover; ``name`` is the container's or the image's."""

    name: str
    reaped: bool
    rule: str
    reason: str


def judge_builder(
    builder: ContainerInfo, words: Mapping[str, Word], *, held: Collection[str], host: str, now: datetime
) -> Reaping:
    """Whether a builder is reaped. ``words`` are Prefect's, by flow run; ``held`` the builders of living processes.

    Deadlines are by this host's clock, which is the engine's too.
    """

    def kept(rule: str, reason: str) -> Reaping:
        return Reaping(builder.name, False, rule, reason)

    flow_run = builder.labels.get(LABEL_FLOW_RUN, "")
    word = words.get(flow_run)
    deadline = read_deadline(builder)
    if builder.name in held:
        return kept("lease", "the process that builds in it lives")
    if deadline is None:
        return kept("no-deadline", "its label tells no time")
    if now <= deadline + _OVERDUE:
        return kept("not-overdue", f"its deadline is {deadline:%Y-%m-%d %H:%M:%S} UTC")
    if not flow_run:
        # Nobody can be asked. Its build ended by its own timeout, which is before the deadline.
        return Reaping(builder.name, True, "no-flow-run", "it was made without Prefect, and its deadline is past")
    if word is None:
        return kept("unknown", f"Prefect has not said what became of the run {flow_run}")
    if word is Word.LIVE:
        return kept("live", f"the run {flow_run} is going on")
    if word is Word.NONE and builder.labels.get(LABEL_HOST) != host:
        return kept("anothers", "another Caisson made it, whose runs this Prefect does not know")
    end = "has ended" if word is Word.DEAD else "is gone from Prefect"
    return Reaping(builder.name, True, "dead", f"the run {flow_run} {end}, and its deadline is past")


def judge_names(
    images: Collection[ImageInfo],
    builders: Collection[ContainerInfo],
    *,
    held: Collection[str],
    now: datetime,
) -> list[Reaping]:
    """Whether names of images under construction are reaped; nothing is said of other names.

    They tell no flow run, but a live build has its builder from before its image has a name until after all tags are
    set, and its lease until the last push. So ``images`` must have been listed before ``builders`` and leases, or a
    build that began in between would seem to have none. An image that was made within the last minute is left alone
    all the same: there is no hurry.
    """
    there = {builder.name for builder in builders}
    return [
        _judge_name(tag, build, image, there=there, held=held, now=now)
        for image in images
        for tag in image.tags
        if (build := build_under_construction(tag))
    ]


def judge_step(container: ContainerInfo, *, is_held: Callable[[str], bool | None], now: datetime) -> Reaping | None:
    """Whether a container, as inspected, is reaped as a RUN step of a dead build; None where it is no RUN step.

    ``is_held`` tells whether a build holds a control group, None where nobody knows. A live build has done with the
    container of a step long before a minute is over.
    """
    group = str(container.raw.get("HostConfig", {}).get("CgroupParent") or "")
    if is_builder(container) or not is_build_group(group):
        return None
    held = is_held(group)
    if held is None:
        return Reaping(container.name, False, "unknown-group", "nobody knows whether a build holds its control group")
    if held:
        return Reaping(container.name, False, "group", "a build holds its control group")
    if container.state not in ENDED or container.finished is None or now - container.finished <= _OVERDUE:
        return Reaping(container.name, False, "not-overdue", "it ended just now")
    return Reaping(container.name, True, "no-build", "its build is gone")


def _judge_name(
    tag: str,
    build: str,
    image: ImageInfo,
    *,
    there: Collection[str],
    held: Collection[str],
    now: datetime,
) -> Reaping:
    if container_name(build) in held:
        return Reaping(tag, False, "lease", "the process that builds it lives")
    if container_name(build) in there:
        return Reaping(tag, False, "has-builder", "its builder is there")
    if not image.created.isdigit():
        return Reaping(tag, False, "no-age", "the engine does not tell how old it is")
    if now - datetime.fromtimestamp(int(image.created), UTC) <= _OVERDUE:
        return Reaping(tag, False, "not-overdue", "it was made just now")
    return Reaping(tag, True, "no-builder", "its builder is gone")
