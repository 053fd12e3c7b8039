"""Our code in the fork server: used while it is what is on disk, imported anew by a run where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("caisson", "tasks", "flows", "deployments")
# A process of its own, as the fork server is one. Instead of the engine a stand-in tells what code a run would execute.
SCRIPT = """
import importlib, os, runpy, sys, threading
from pathlib import Path
from deployments import fork_server
fork_server.WARM = ()
code = fork_server.warm_up()
assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1
environment = dict(os.environ)
if sys.argv[1] == "changed":
    with Path("flows/build_image.py").open("a") as file:
        file.write("NEW = True\\n")
elif sys.argv[1] == "settings":
    environment["PREFECT_API_URL"] = "http://127.0.0.1:9/other"
def run_module(name, **_):
    imported = "flows.build_image" in sys.modules
    print(imported, hasattr(importlib.import_module("flows.build_image"), "NEW"))
runpy.run_module = run_module
os.setsid = lambda: None
descriptor = os.open("out", os.O_WRONLY | os.O_CREAT)
fork_server.become(fork_server.Run("1", environment, os.getcwd(), descriptor), code)
"""


@pytest.mark.parametrize(
    ("kind", "imported", "new"), [("same", True, False), ("changed", False, True), ("settings", False, False)]
)
def test_a_run_sees_our_code_as_it_is_on_disk(kind: str, imported: bool, new: bool, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT")}
    environment |= {"PYTHONPATH": str(tmp_path), "PREFECT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", SCRIPT, kind]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == f"{imported} {new}\n"
