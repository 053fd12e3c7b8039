"""What is deployed on a host: the images that its services run, and those that they ran before. Pure.

A service is what a container runs as: its Compose or Swarm service, or else the container's name. A tag is none: each
commit and pull request has tags of its own, and taking what they point to for deployed would keep every image for ever.
A service that was only ever seen with one image deploys nothing: while it is there its image is in use, and when it is
gone, as a single ``docker run`` is, nothing would go back to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

from caisson.builder import is_builder
from caisson.engine import ContainerID, ContainerInfo, EngineEvent, ImageID
from caisson.engine_events import ImageNames, moment
from caisson.ledger.services import ServiceImage

_ALIVE = frozenset(("running", "paused", "restarting"))
# What tells that a container runs, or has run until then.
_RAN = frozenset(("start", "restart", "unpause", "die"))
_COMPOSE = ("com.docker.compose.project", "com.docker.compose.service")
_SWARM = "com.docker.swarm.service.name"


def service_of(container: ContainerInfo) -> str:
    """What a container runs as, the same for the container that replaces it; empty for one without a name."""
    project, service = (container.labels.get(key) for key in _COMPOSE)
    if project and service:
        return f"compose {project}/{service}"
    if swarm := container.labels.get(_SWARM):
        return f"swarm {swarm}"
    return container.name


def running(containers: Iterable[ContainerInfo]) -> set[tuple[str, ImageID]]:
    """The services that run now, each with an image that it runs; builders are none."""
    alive = (one for one in containers if one.state in _ALIVE and one.image and not is_builder(one))
    return {(service, one.image) for one in alive if (service := service_of(one))}


def ran(
    events: Iterable[EngineEvent], names: ImageNames, services: Collection[str], now: datetime
) -> list[ServiceImage]:
    """The services that events tell of, each with an image that it ran and when it last did.

    ``names`` tell which images a container's may have been. Of containers' own names only those of ``services`` count,
    which were seen to run at a look: else each ``docker run`` without a name would leave a service behind.
    """
    found: dict[tuple[str, ImageID], datetime] = {}
    for event in events:
        if event.type != "container" or event.action not in _RAN:
            continue
        # With its own attributes an event has all labels of the container (moby daemon/events.go).
        name, labels = event.attributes.get("name", ""), event.attributes
        container = ContainerInfo(ContainerID(event.subject), name, "running", labels)
        service = service_of(container)
        if is_builder(container) or (service == name and service not in services):
            continue
        at = min(moment(event), now)
        for image in names.find(event.attributes.get("image", "")):
            found[service, image] = max(at, found.get((service, image), at))
    return [ServiceImage(service, image, at) for (service, image), at in found.items()]


def deployed(seen: Iterable[ServiceImage]) -> dict[ImageID, int]:
    """0 for an image that a service ran last, 1 for the one before, and so on; the least over all services."""
    services: dict[str, dict[ImageID, datetime]] = defaultdict(dict)
    for service, image, last_seen in seen:
        services[service][image] = last_seen
    ranks: dict[ImageID, int] = {}
    for images in services.values():
        if len(images) < 2:
            continue
        # Two that ran at once, as during a rolling update, are equally current.
        rank_of = {at: rank for rank, at in enumerate(sorted(set(images.values()), reverse=True))}
        for image, at in images.items():
            ranks[image] = min(rank_of[at], ranks.get(image, rank_of[at]))
    return ranks
