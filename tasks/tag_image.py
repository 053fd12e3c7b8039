"""Step: the final tags, set by Caisson on the engine itself, by image ID."""

from __future__ import annotations

from datetime import UTC, datetime

from caisson.build import Build
from caisson.engine import ImageInfo, short_id
from caisson.report import TagReport
from caisson.tagging import plan_moves
from tasks.step import step


@step("tag_image")
def tag_image(build: Build, image: ImageInfo) -> None:
    """Point every planned tag at the image, and record what each pointed to before."""
    planned = {f"{build.spec.image}:{item.tag}": item for item in build.tags}
    build.hold(image.id, *planned)
    found = {reference: build.engine.inspect_image(reference) for reference in planned}
    current = {reference: info.id if info else None for reference, info in found.items()}
    moves = {move.reference: move for move in plan_moves(planned, current, image.id).moves}
    for reference, item in planned.items():
        move = moves.get(reference)
        previous = move.previous if move else None
        if move is not None:
            build.engine.tag_image(image.id, reference)
            build.ledger.builds.record_tag(
                reference=reference,
                image_id=image.id,
                previous=previous,
                build_id=build.identity.build_id,
                tagged=datetime.now(UTC),
            )
        build.record.tags.append(
            TagReport(reference=reference, rule=item.rule, reason=item.reason, previous=previous or "")
        )
        build.log.line(f"{reference} → {short_id(image.id)}{f' (was {short_id(previous)})' if previous else ''}")
