"""What a build reads is held by its lease: all of it, or everything where it can't be told."""

from __future__ import annotations

import pytest

from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_stages import BuildInputs, Kind
from caisson.images_read import images_read


def _read(text: str, builder: Kind = "buildkit", **build_args: str) -> set[str] | None:
    images = images_read(text.encode(), Dialect.HEREDOCS, BuildInputs(builder, tuple(build_args.items())))
    return None if images is None else set(images)


def test_bases_copied_and_mounted_images_are_read_and_stages_are_not() -> None:
    text = (
        "ARG BASE=debian:trixie-slim\n"
        "FROM ${BASE} AS one\n"
        "FROM one AS two\n"
        "COPY --from=team/tools:1 /a /a\n"
        "RUN --mount=type=bind,from=team/cache:2,target=/c true\n"
        "FROM scratch\n"
        "COPY --from=two / /\n"
    )
    assert _read(text) == {"debian:trixie-slim", "team/tools:1", "team/cache:2"}
    assert _read(text, BASE="other:3") == {"other:3", "team/tools:1", "team/cache:2"}


def test_a_frontend_is_read_by_buildkit_alone() -> None:
    text = "# syntax=docker/dockerfile:1 more\nFROM a\n"
    assert _read(text) == {"a", "docker/dockerfile:1"}
    assert _read(text, "classic") == {"a"}
    assert _read("FROM a\n", BUILDKIT_SYNTAX="f:2") == {"a", "f:2"}


@pytest.mark.parametrize(
    "text", ["FROM $UNKNOWN_TO_ALL/${TARGETSTAGE}\n", "FROM a\nCOPY --from=UPPER:x / /\n", "nothing"]
)
def test_what_cant_be_told_is_everything(text: str) -> None:
    assert _read(text) is None
