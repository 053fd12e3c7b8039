"""Step: an image of the same commit and spec that is on this host already needs no build."""

from __future__ import annotations

from datetime import UTC, datetime

from caisson.build import Build
from caisson.engine import ImageInfo, short_id
from caisson.git import Chosen
from caisson.spec_turn import SpecTurn
from tasks.step import step

_MOST_OF_TIMEOUT = 0.5


def spec_turn(build: Build) -> SpecTurn:
    """The build's turn at its spec, to be held until its image has its tags."""
    identity = build.identity
    holder = f"run {identity.flow_run_id}" if identity.flow_run_id else identity.container_name
    return SpecTurn(build.settings.state_dir / "specs", holder)


@step("reuse_image")
def reuse_image(build: Build, chosen: Chosen, turn: SpecTurn) -> ImageInfo | None:
    """The image that an earlier build made to this spec, by the ledger and not by a label; None: build it.

    One that is being made now is waited for, no longer than half of the build's own time.
    """
    build.decide_labels(chosen)
    most = 0 if build.spec.no_cache else build.spec.limits.timeout_seconds * _MOST_OF_TIMEOUT

    def is_patient(waited: float) -> bool:
        return waited < most and not (build.timeout and build.timeout.expired)

    turn.take(build.record.spec_hash, patient=is_patient, say=build.log.line)
    if build.spec.no_cache:
        build.log.line("no_cache is set: building anew")
        return None
    for image_id in build.ledger.builds.images_of_spec(build.record.spec_hash):
        # Held before it is looked at: one that is there then stays.
        build.hold(image_id)
        image = build.engine.inspect_image(image_id)
        if image is not None:
            build.log.line(f"{short_id(image_id)} was built from this commit and spec: no build")
            build.ledger.builds.record_reuse(image_id, datetime.now(UTC))
            build.record.reused = True
            build.record.image_id, build.record.size = image.id, image.size
            return image
    build.log.line("no image of this commit and spec on this host")
    return None
