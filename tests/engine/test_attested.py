"""An image with attestations on the containerd store: one image, however many manifests its index lists."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

from caisson.docker_engine import DockerEngine
from caisson.engine import ImageID
from tests.conftest import find_containerd_engine


def test_an_attested_image_is_listed_once_and_goes_as_a_whole(buildx: tuple[Path, ...], tmp_path: Path) -> None:
    host, tag = find_containerd_engine(), f"caisson-test/attested:{uuid.uuid4().hex[:8]}"
    (tmp_path / "Dockerfile").write_text(f"FROM debian:trixie-slim\nRUN echo {tag} > /tag\n")
    command = [str(buildx[0]), "build", "--provenance=mode=max", "--tag", tag, str(tmp_path)]
    env = {**os.environ, "DOCKER_HOST": host.docker_host}
    with DockerEngine(host.docker_host) as engine:
        before = _images(engine)
        built = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        assert "exporting attestation manifest" in built.stderr
        (image,) = _images(engine) - before
        assert engine.remove_image(image, timeout=60)
        assert _images(engine) == before


def _images(engine: DockerEngine) -> set[ImageID]:
    return {image.id for image in engine.list_images(intermediate=True)}
