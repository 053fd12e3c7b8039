"""Step: the final tags, set by Caisson on the engine itself, by image ID."""

from __future__ import annotations

from datetime import UTC, datetime

from caisson.build import Build
from caisson.engine import ImageID, ImageInfo, short_id
from caisson.report import TagReport
from caisson.tag_turn import left_alone, tag_turn
from tasks.step import step


@step("tag_image")
def tag_image(build: Build, image: ImageInfo) -> None:
    """Point every planned tag at the image, and record what each pointed to before.

    One that a later push of the same ref has moved already stays with that.
    """
    planned = {f"{build.spec.image}:{item.tag}": item for item in build.tags}
    build.hold(image.id, *planned)
    for reference, item in planned.items():
        with tag_turn(build, reference, item.rule, to="move") as is_mine:
            if not is_mine:
                build.record.notes.append(f"{left_alone(reference)}.")
                build.log.line(left_alone(reference))
                continue
            previous = _move(build, reference, image)
        build.record.tags.append(
            TagReport(reference=reference, rule=item.rule, reason=item.reason, previous=previous or "")
        )
        build.log.line(f"{reference} → {short_id(image.id)}{f' (was {short_id(previous)})' if previous else ''}")


def _move(build: Build, reference: str, image: ImageInfo) -> ImageID | None:
    """Point the tag at the image; what it pointed to before, None where that was nothing or the same."""
    found = build.engine.inspect_image(reference)
    if found is not None and found.id == image.id:
        return None
    previous = found.id if found is not None else None
    build.engine.tag_image(image.id, reference)
    build.ledger.builds.record_tag(
        reference=reference,
        image_id=image.id,
        previous=previous,
        build_id=build.identity.build_id,
        tagged=datetime.now(UTC),
    )
    return previous
