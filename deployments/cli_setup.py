"""``caisson builder-image``: the set-up scripts of the checkout, run with Caisson's own settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from caisson.errors import CaissonError
from caisson.settings import load_settings

_SETUP = Path(__file__).parent / "setup"
# The base is pulled or bootstrapped first, where it is not there.
_SCRIPTS = ("base-image.sh", "builder-image.sh")


def make_builder_image(*, say: Callable[[str], None]) -> None:
    """Make the builder's image; says nothing more when it is up to date. Raises ``CaissonError`` when that fails."""
    settings = load_settings()
    environment = {
        "CAISSON_DOCKER_HOST": settings.docker_host,
        "CAISSON_BUILDER_IMAGE": settings.builder_image,
        "CAISSON_STATE_DIR": str(settings.state_dir),
    }
    for name in _SCRIPTS:
        script = _SETUP / name
        if not script.exists():
            raise CaissonError(
                f"{script} is not there: this Caisson was installed without its set-up scripts.",
                hint="Run `caisson builder-image` from a checkout of the project.",
            )
        done = subprocess.run([str(script)], env={**os.environ, **environment}, check=False)
        if done.returncode:
            raise CaissonError(
                f"{name} ended with exit code {done.returncode}.", hint="What it printed above says why."
            )
    say(f"{settings.builder_image} is up to date.")
