"""What is deployed on a host: the images that its services run, and those that they ran before. Pure.

A service is what a container runs as: its Compose or Swarm service, or else the container's name. A tag is none: each
commit and pull request has tags of its own, and taking what they point to for deployed would keep every image for ever.
A service that was only ever seen with one image deploys nothing: while it is there its image is in use, and when it is
gone, as a single ``docker run`` is, nothing would go back to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from caisson.builder import is_builder
from caisson.engine import ContainerInfo, ImageID
from caisson.ledger.services import ServiceImage

_ALIVE = frozenset(("running", "paused", "restarting"))
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
        rank_of = {moment: rank for rank, moment in enumerate(sorted(set(images.values()), reverse=True))}
        for image, moment in images.items():
            ranks[image] = min(rank_of[moment], ranks.get(image, rank_of[moment]))
    return ranks
