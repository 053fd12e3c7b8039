"""A Docker engine of a test's own, to be stopped, killed, filled or emptied: a dockerd in namespaces of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deployments.tether import tethered
from tests.conftest import EngineHost, ask_engine
from tests.flows.caisson_host import wait_for

_HERE = "mount -t tmpfs tmpfs /run"
# As the second test engine is entered; this engine's directory has the same path in there.
_IN_ROOT = """
mount --bind "$2" "$2"
mkdir -p "$2$1"
mount --rbind "$1" "$2$1"
cd "$2"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs mnt
mkdir mnt/outside
pivot_root . mnt/outside
cd /
umount -l /mnt/outside
"""
_READY = 'touch "$1/ready"; exec sleep infinity'


@dataclass
class OwnEngine:
    """A dockerd that may be stopped: in network and mount namespaces of its own, which outlive it.

    Without them it would take the first engine's containerd from /run, and its bridge.
    """

    directory: Path
    address: str
    holder: subprocess.Popen[bytes]
    options: tuple[str, ...] = ()
    containerd_store: bool = False
    process: subprocess.Popen[bytes] | None = None
    host: EngineHost = field(init=False)

    def __post_init__(self) -> None:
        self.host = EngineHost("own", f"unix://{self.directory}/docker.sock", self.address)

    @property
    def data_root(self) -> Path:
        return self.directory / "data-root"

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--target={self.holder.pid}", "--net", "--mount", *argv]

    def start(self) -> None:
        options = [f"--{name}={self.directory / name}" for name in ("data-root", "exec-root", "pidfile")]
        options += [f"--host={self.host.docker_host}", f"--bip={self.address}/24", *self.options]
        if self.containerd_store:
            config = self.directory / "daemon.json"
            config.write_text('{"features": {"containerd-snapshotter": true}}')
            options.append(f"--config-file={config}")
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.inside("dockerd", *options), stdout=log, stderr=log)
        wait_for("the engine", self._answers, seconds=30)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        try:
            return bool(ask_engine(self.host, "/_ping"))
        except OSError:
            return False

    def kill(self) -> None:
        """End it by SIGKILL, and wait until its containerd is gone, which the kernel ends with it.

        A dockerd that starts before takes that for one that lives.
        """
        containerd = int((self.directory / "exec-root/containerd/containerd.pid").read_text())
        self.stop(signal.SIGKILL)
        wait_for("the end of its containerd", lambda: not Path(f"/proc/{containerd}").exists())

    def stop(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)


@contextmanager
def own_engine(
    address: str,
    *options: str,
    disk_bytes: int = 0,
    inodes: int = 0,
    root: Path = Path("/"),
    containerd_store: bool = False,
) -> Iterator[OwnEngine]:
    """An engine whose bridge has ``address``; with ``disk_bytes`` its data root is an ext4 of that size.

    ``options`` are more of dockerd's own. ``root`` is the root directory whose dockerd it is: ``EngineHost.root``. With
    ``containerd_store`` it keeps images there, which takes a newer one than the host's.
    """
    directory = Path(tempfile.mkdtemp(prefix="caisson-engine-"))
    data_root = directory / "data-root"
    data_root.mkdir()
    if disk_bytes:
        image = directory / "disk.img"
        with image.open("wb") as file:
            file.truncate(disk_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", *(["-N", str(inodes)] if inodes else []), str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(data_root)], check=True)
    script = f"ip link set lo up\n{_HERE if root == Path('/') else _IN_ROOT}\n{_READY}"
    inner = ["sh", "-ec", script, "sh", str(directory), str(root)]
    command = ["unshare", "--net", "--mount", "--propagation=private", *inner]
    try:
        with subprocess.Popen(tethered(command)) as holder:
            own = OwnEngine(directory, address, holder, options, containerd_store)
            try:
                wait_for("its namespaces", (directory / "ready").exists)
                own.start()
                yield own
            finally:
                if own.process is not None and own.process.poll() is None:
                    own.stop(signal.SIGTERM)
                holder.kill()
    finally:
        if disk_bytes:
            subprocess.run(["umount", str(data_root)], check=True)
        # Its mounts went with their namespace.
        shutil.rmtree(directory, ignore_errors=True)
        if root != Path("/"):
            (root / directory.relative_to("/")).rmdir()


def copy_image(image: str, source: EngineHost, target: EngineHost) -> None:
    """Bring an image from one engine to another."""
    with subprocess.Popen(["docker", "-H", source.docker_host, "save", image], stdout=subprocess.PIPE) as saved:
        load = ["docker", "-H", target.docker_host, "load", "--quiet"]
        subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True)
