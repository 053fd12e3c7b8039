"""Step: an image of the same commit and spec that is on this host already needs no build."""

from __future__ import annotations

from datetime import UTC, datetime

from caisson.build import Build
from caisson.engine import ImageInfo, short_id
from caisson.git import Chosen
from tasks.step import step


@step("reuse_image")
def reuse_image(build: Build, chosen: Chosen) -> ImageInfo | None:
    """The image that an earlier build made to this spec, by the ledger and not by a label; None: build it."""
    build.decide_labels(chosen)
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
