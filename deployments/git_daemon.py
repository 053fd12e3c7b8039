"""A directory as a git repository, the same commit each time, and git's own read-only server for it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from caisson.errors import CaissonError
from deployments.tether import tethered

GIT_PORT = 9418
"""The port of ``git://``, by IANA."""

_START_SECONDS = 10.0
_MOST_CONNECTIONS = 8
_IDLE_SECONDS = 60
_BRANCH = "main"
_IDENTITY = {"NAME": "Caisson", "EMAIL": "caisson@localhost", "DATE": "2025-01-01T00:00:00Z"}
# Nothing of this user's or this host's configuration may get into the commit, or be asked for.
_ENVIRONMENT = {
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _IDENTITY.items()},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True)
class Repository:
    """A bare repository with one commit, the branch ``main`` and a tag for its version."""

    path: Path
    sha: str
    tag: str


def make_repository(content: Path, path: Path) -> Repository:
    """Make or update the bare repository at ``path`` from a directory with a file ``VERSION``.

    Content alone decides the commit. Raises ``CaissonError`` when git is not there or fails.
    """
    version = (content / "VERSION").read_text().strip()
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise CaissonError(f"{content / 'VERSION'} holds {version!r}, which is no version such as 1.2.3.")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _git("init", "--quiet", "--bare", f"--initial-branch={_BRANCH}", str(path))
    with tempfile.TemporaryDirectory(prefix="caisson-") as scratch:
        where = {"GIT_DIR": str(path), "GIT_WORK_TREE": str(content), "GIT_INDEX_FILE": f"{scratch}/index"}
        # Modes and line ends as they are here depend on how this clone was made.
        plain = ("-c", "core.fileMode=false", "-c", "core.autocrlf=false", "-c", "core.bare=false")
        _git(*plain, "add", "--force", "--", ".", env=where)
        tree = _git(*plain, "write-tree", env=where)
        sha = _git("commit-tree", "-m", f"Version {version}", tree, env=where)
    tag = f"v{version}"
    for ref in (f"refs/heads/{_BRANCH}", f"refs/tags/{tag}"):
        _git("--git-dir", str(path), "update-ref", ref, sha)
    return Repository(path, sha, tag)


@contextmanager
def served(repository: Repository, address: str) -> Iterator[str]:
    """Serve the repository, and nothing beside it, read-only and on this address only; yields its URL.

    git's own port is taken where it is free, so that the URL stays the same. Raises ``CaissonError`` when the address
    is none of this host's, or the server does not start.
    """
    port = _free_port(address)
    root = repository.path.parent
    command = [
        str(Path(_git("--exec-path")) / "git-daemon"),
        *("--reuseaddr", f"--listen={address}", f"--port={port}", f"--max-connections={_MOST_CONNECTIONS}"),
        *(f"--timeout={_IDLE_SECONDS}", "--export-all", "--strict-paths", f"--base-path={root}"),
        *("--disable=receive-pack", "--disable=upload-archive", str(repository.path)),
    ]
    # A session of its own: Ctrl-C is for the demonstration, whose builder may still be cloning.
    process = subprocess.Popen(
        tethered(command),
        env={**os.environ, **_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _await_port(process, address, port)
        where = address if port == GIT_PORT else f"{address}:{port}"
        yield f"git://{where}/{repository.path.name}"
    finally:
        # Its session: whoever answers a client listens on the port as well.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _free_port(address: str) -> int:
    for port in (GIT_PORT, 0):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                problem = error
            else:
                return int(probe.getsockname()[1])
    raise CaissonError(
        f"A git server can't listen on {address}, the gateway of the engine's network ({problem.strerror}).",
        hint="Build a repository that the engine reaches: make demo REPO=https://…",
    )


def _await_port(process: subprocess.Popen[bytes], address: str, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None:
            said = process.stderr.read(1000).decode(errors="replace").strip() if process.stderr is not None else ""
            raise CaissonError(f"git daemon ended at once: {said or f'exit code {process.returncode}'}.")
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise CaissonError(f"git daemon does not answer on {address}:{port}.") from None
            time.sleep(0.02)
        else:
            return


def _git(*arguments: str, env: dict[str, str] | None = None) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            env={**inherited, **_ENVIRONMENT, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CaissonError("There is no git on this host.", hint="Install it: apt-get install git.") from None
    if done.returncode:
        raise CaissonError(f"git {arguments[-1]} failed: {done.stderr.strip()[:500]}.")
    return done.stdout.strip()
