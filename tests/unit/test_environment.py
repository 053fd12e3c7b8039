"""The script that makes the Python environment, on an environment that is made already."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SETUP = Path(__file__).parents[2] / "deployments" / "setup"


def test_our_modules_are_compiled_even_where_python_writes_no_bytecode(tmp_path: Path) -> None:
    setup = tmp_path / "deployments" / "setup"
    shutil.copytree(SETUP, setup)
    contents = [tmp_path / "requirements.lock", tmp_path / "pyproject.toml"]
    for file in contents:
        file.write_text("# nothing\n")
    module = tmp_path / "caisson" / "module.py"
    module.parent.mkdir()
    module.write_text("x = 1\n")
    binary = tmp_path / ".venv" / "bin"
    binary.mkdir(parents=True)
    (binary / "python").symlink_to(sys.executable)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in (*contents, setup / "setup.lock"))).hexdigest()
    (tmp_path / ".venv" / ".caisson").write_text(f"dev {digest} {tmp_path}")
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([setup / "environment.sh", "--dev"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert [file.suffix for file in (module.parent / "__pycache__").iterdir()] == [".pyc"]
