"""Small git repositories, made for a test and served read-only by a real git daemon."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.tether import tethered
from tests.engine.network import EngineNetwork

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(directory: Path, *arguments: str) -> str:
    """Run git with an identity of its own; raises ``CalledProcessError`` with git's words in it."""
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env={**os.environ, **_IDENTITY}, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done.stdout.strip()


@dataclass(frozen=True)
class Repository:
    """A bare-served repository: where it is, and the URL that builders reach it by."""

    directory: Path
    url: str

    def commit(self, files: Mapping[str, str | bytes], message: str = "change") -> str:
        """Write the files, commit them on the current branch; returns the SHA."""
        for name, content in files.items():
            file = self.directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        git(self.directory, "add", "--all", "--force", ".")
        git(self.directory, "commit", "--quiet", "--allow-empty", "-m", message)
        return git(self.directory, "rev-parse", "HEAD")


@dataclass(frozen=True)
class GitDaemon:
    """A real ``git daemon`` on one address."""

    root: Path
    address: str
    port: int

    def repository(self, name: str, files: Mapping[str, str | bytes] | None = None) -> Repository:
        directory = self.root / name
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        git(directory, "init", "--quiet", "--initial-branch=main")
        # A builder may ask for any commit by its SHA, as the public forges allow.
        git(directory, "config", "uploadpack.allowAnySHA1InWant", "true")
        repository = Repository(directory, f"git://{self.address}:{self.port}/{name}/.git")
        if files is not None:
            repository.commit(files, "first")
        return repository


@contextmanager
def git_daemon(root: Path, address: str, network: EngineNetwork | None = None) -> Iterator[GitDaemon]:
    """Serve all below ``root`` at ``git://ADDRESS:PORT/`` while the block runs, here or in an engine's network."""
    root.mkdir(parents=True, exist_ok=True)
    network = network or EngineNetwork(os.getpid())
    port = network.free_port(address)
    daemon = Path(git(root, "--exec-path")) / "git-daemon"
    options = ["--reuseaddr", "--export-all", f"--base-path={root}"]
    process = subprocess.Popen(
        tethered(network.command(str(daemon), *options, f"--listen={address}", f"--port={port}")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not network.call(lambda: _answers(address, port)):
            time.sleep(0.02)
        yield GitDaemon(root, address, port)
    finally:
        process.kill()
        process.wait()


def _answers(address: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0
