"""Images made of layers of a test's choice, loaded into an engine in one go: no build, no registry."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from tests.conftest import EngineHost


@dataclass(frozen=True)
class Layer:
    """One layer: files of random bytes. The same ``seed`` is the same layer."""

    seed: str
    size: int = 0
    files: int = 1

    @property
    def archive(self) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for number in range(self.files):
                content = random.Random(f"{self.seed}{number}").randbytes(self.size // self.files)
                entry = tarfile.TarInfo(f"{self.seed}/{number // 1000}/{number}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return stream.getvalue()


@dataclass(frozen=True)
class ArchiveImage:
    """One image: its tags and layers, the lowest first."""

    tags: tuple[str, ...]
    layers: Sequence[Layer]
    labels: Mapping[str, str] = field(default_factory=dict)


def load_images(host: EngineHost, images: Sequence[ArchiveImage]) -> None:
    """Have the engine load them all; raises ``CalledProcessError``."""
    with tempfile.TemporaryFile() as file:
        _write(file, images)
        file.seek(0)
        subprocess.run(
            ["docker", "-H", host.docker_host, "load", "--quiet"], stdin=file, check=True, capture_output=True
        )


def _write(file: IO[bytes], images: Sequence[ArchiveImage]) -> None:
    digests: dict[Layer, str] = {}
    manifest = []
    with tarfile.open(fileobj=file, mode="w") as tar:
        for image in images:
            for layer in image.layers:
                if layer not in digests:
                    archive = layer.archive
                    digests[layer] = hashlib.sha256(archive).hexdigest()
                    _add(tar, f"{digests[layer]}/layer.tar", archive)
            config = {
                "architecture": "amd64",
                "os": "linux",
                # As base images and reproducible builds are: of no concern to when they were used.
                "created": "2025-01-01T00:00:00Z",
                "config": {"Labels": dict(image.labels), "Cmd": ["/none"]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digests[layer]}" for layer in image.layers]},
                "history": [{"created_by": layer.seed} for layer in image.layers],
                # So that two images of the same layers are two images.
                "author": " ".join(image.tags),
            }
            content = json.dumps(config).encode()
            name = f"{hashlib.sha256(content).hexdigest()}.json"
            _add(tar, name, content)
            paths = [f"{digests[layer]}/layer.tar" for layer in image.layers]
            manifest.append({"Config": name, "RepoTags": list(image.tags), "Layers": paths})
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
