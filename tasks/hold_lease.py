"""The lease of a build: while it is held, no prune of this host removes an image that the build needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caisson.build import Build
from caisson.leases import Leases


@contextmanager
def hold_lease(build: Build) -> Iterator[None]:
    """From before the builder is made until the last tag is pushed; steps add what they come to need.

    Waiting for it has an end with the build's timeout: raises ``BuildTimedOut``.
    """
    leases = Leases(build.settings.state_dir / "leases", build.ledger.leases, waiting=build.require_time)
    identity = build.identity
    names = (build.settings.builder_image, identity.reference)
    with leases.hold(identity.container_name, names, taken=build.started) as build.lease:
        yield
