"""The buildx of the builder image, for tests and measurements that run it outside a builder."""

from __future__ import annotations

import subprocess
from pathlib import Path

HOST = "unix:///var/run/docker.sock"


def copy_buildx(target: Path) -> Path:
    """Copy the binary out of the builder image of this host's own engine to ``target``."""
    container = _docker("create", "caisson-builder:latest").strip()
    try:
        _docker("cp", "-L", f"{container}:/usr/libexec/docker/cli-plugins/docker-buildx", str(target))
    finally:
        _docker("rm", container)
    return target


def _docker(*command: str) -> str:
    program = ["docker", "--host", HOST, *command]
    return subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout
