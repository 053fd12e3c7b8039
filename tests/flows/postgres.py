"""A real PostgreSQL for tests: Debian's programs, a cluster of its own on the loopback, gone with the block."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.flows.caisson_host import free_port

PASSWORD = "c4non-of-postgres"


@dataclass(frozen=True)
class Postgres:
    """A server that knows one user, ``caisson``."""

    programs: Path
    port: int

    def url(self, database: str) -> str:
        """What ``CAISSON_DATABASE_URL`` has to be."""
        return f"postgresql+asyncpg://caisson:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> str:
        """Run a client program as that user; returns what it printed."""
        server = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "caisson",
            "PGPASSWORD": PASSWORD,
        }
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, env=os.environ | server, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout


@contextmanager
def postgres() -> Iterator[Postgres]:
    """The server while the block runs, as Debian's user ``postgres``, since it refuses to be root."""
    (*_, programs) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    directory, port = Path(tempfile.mkdtemp(prefix="caisson-postgres-")), free_port()
    (directory / "password").write_text(PASSWORD)
    shutil.chown(directory, "postgres")
    shutil.chown(directory / "password", "postgres")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            ["runuser", "-u", "postgres", "--", str(programs / program), "-D", str(directory / "data"), *arguments],
            check=True,
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )

    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={directory} -c fsync=off"
    try:
        run("initdb", "--auth=scram-sha-256", f"--pwfile={directory / 'password'}", "--username=caisson", "--no-sync")
        run("pg_ctl", "start", "--wait", f"--log={directory / 'log'}", "-o", options)
        yield Postgres(programs, port)
        run("pg_ctl", "stop", "--wait", "--mode=immediate")
    finally:
        shutil.rmtree(directory)
