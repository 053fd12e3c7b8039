"""The host of the settings as a prune works with it: its engine, ledger, leases, and the disk that its images fill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from caisson.boot import read_boot
from caisson.disk import read_file_system
from caisson.disk_places import docker_places, find_images
from caisson.disk_reserve import DiskReserve
from caisson.docker_engine import DockerEngine
from caisson.engine import EngineInfo
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.prune_view import PruneHost
from caisson.settings import Settings

_SIDE_BY_SIDE = 4
"""Removals at once on the containerd store, where that is four times as fast; on overlay2 it gains next to nothing."""


@contextmanager
def open_prune_host(settings: Settings) -> Iterator[PruneHost]:
    """Raises ``EngineUnreachable``, ``LedgerUnusable``, and ``SettingsInvalid`` where Docker's disk can't be seen."""
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    leases = Leases(settings.state_dir / "leases", ledger.leases)
    with ExitStack() as stack:
        engine = stack.enter_context(DockerEngine(settings.docker_host))
        info = engine.info()
        at_once = _SIDE_BY_SIDE if info.containerd_store else 1
        root = images_root(info, settings)
        others = (stack.enter_context(DockerEngine(settings.docker_host)) for _ in range(at_once - 1))
        yield PruneHost(
            engines=(engine, *others),
            ledger=ledger,
            leases=leases,
            read_usage=partial(read_file_system, root),
            containerd_store=info.containerd_store,
            engine_id=info.id,
            reserve=DiskReserve(root),
            boot=read_boot,
        )


def images_root(info: EngineInfo, settings: Settings) -> Path:
    """A directory on the file system that images fill; raises ``SettingsInvalid`` when it is not to be seen."""
    return Path(find_images(docker_places(info, settings)).path)
