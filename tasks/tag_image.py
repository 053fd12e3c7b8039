"""Step: the final tags, set by Caisson on the engine itself, by image ID."""

from __future__ import annotations

from datetime import UTC, datetime

from caisson.build import Build
from caisson.engine import ImageID, ImageInfo
from caisson.report import TagReport
from tasks.step import step


@step("tag_image")
def tag_image(build: Build, image: ImageInfo) -> None:
    """Point every planned tag at the image, and record what each pointed to before."""
    for planned in build.tags:
        reference = f"{build.spec.image}:{planned.tag}"
        current = build.engine.inspect_image(reference)
        previous = current.id if current and current.id != image.id else None
        if current is None or previous:
            build.engine.tag_image(image.id, reference)
            build.ledger.record_tag(
                reference=reference,
                image_id=image.id,
                previous=previous,
                build_id=build.identity.build_id,
                tagged=datetime.now(UTC),
            )
        build.record.tags.append(
            TagReport(reference=reference, rule=planned.rule, reason=planned.reason, previous=previous or "")
        )
        build.log.line(f"{reference} → {_short(image.id)}{f' (was {_short(previous)})' if previous else ''}")
    if not build.record.reused:
        build.engine.untag_image(build.identity.reference)


def _short(image: ImageID) -> str:
    return image.removeprefix("sha256:")[:12]
