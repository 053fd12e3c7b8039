"""The paths that are never a mount's source, and how paths are compared with them. Pure data and functions.

Sources: security guidelines ("Never Mount Root Directories") and CIS Docker Benchmark 1.6.0, 5.6.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

PathParts = tuple[str, ...]
"""The components of a path as ``fold`` gives them; empty for ``/``."""


@dataclass(frozen=True)
class DeniedRoot:
    """A path that is never a source, nor is what is below or above it.

    ``sockets``: an allowlisted socket may lie below it, since sockets live there.
    """

    path: str
    what: str
    sockets: bool = False


FIRST_RULE_ROOTS = (
    DeniedRoot("/", "the root file system"),
    DeniedRoot("/Users", "the users' files (macOS)"),
    DeniedRoot("/home", "the users' files"),
    DeniedRoot("/root", "root's files"),
    DeniedRoot("/etc", "the system's configuration"),
)

HOST_ROOTS = (
    # The engine's and other runtimes' state: every image, container, volume and secret of the host.
    DeniedRoot("/var/lib/docker", "the engine's own data"),
    DeniedRoot("/var/lib/containerd", "containerd's data"),
    DeniedRoot("/var/lib/containers", "podman's and CRI-O's data"),
    DeniedRoot("/var/lib/kubelet", "kubelet's data and its pods' secrets"),
    # The sockets of other runtimes are root on the host without any of the engine's own checks.
    DeniedRoot("/run/containerd", "containerd's sockets"),
    DeniedRoot("/run/crio", "CRI-O's sockets"),
    DeniedRoot("/run/podman", "podman's sockets"),
    DeniedRoot("/run/buildkit", "buildkitd's socket"),
    DeniedRoot("/run/k3s", "k3s's sockets"),
    DeniedRoot("/run/systemd", "systemd's sockets"),
    DeniedRoot("/run/dbus", "the system bus"),
    # The kernel's and the machine's own files.
    DeniedRoot("/boot", "the boot files"),
    DeniedRoot("/dev", "the devices"),
    DeniedRoot("/proc", "the kernel's process files"),
    DeniedRoot("/sys", "the kernel's system files"),
    # Programs: who can write them runs as root at the next start.
    DeniedRoot("/bin", "the system's programs"),
    DeniedRoot("/sbin", "the system's programs"),
    DeniedRoot("/lib", "the system's libraries"),
    DeniedRoot("/lib32", "the system's libraries"),
    DeniedRoot("/lib64", "the system's libraries"),
    DeniedRoot("/usr", "the system's programs"),
    DeniedRoot("/opt", "added programs"),
    DeniedRoot("/snap", "added programs"),
    DeniedRoot("/nix", "added programs"),
    # State of services, and where other disks are attached. The engine's socket lives below two of them.
    DeniedRoot("/run", "the services' run-time state", sockets=True),
    DeniedRoot("/var/run", "the services' run-time state", sockets=True),
    DeniedRoot("/var", "the services' data", sockets=True),
    DeniedRoot("/srv", "served data"),
    DeniedRoot("/mnt", "other disks"),
    DeniedRoot("/media", "other disks"),
    # macOS and Docker Desktop, whose virtual machine has the host's disks below /host_mnt.
    DeniedRoot("/private", "macOS's /etc and /var"),
    DeniedRoot("/System", "macOS itself"),
    DeniedRoot("/Library", "macOS's configuration"),
    DeniedRoot("/Volumes", "other disks (macOS)"),
    DeniedRoot("/host_mnt", "the host's disks (Docker Desktop)"),
)

RUNTIME_SOCKETS = frozenset(
    (
        *("containerd.sock", "containerd.sock.ttrpc", "containerd-debug.sock", "docker-containerd.sock"),
        *("crio.sock", "cri-dockerd.sock", "dockershim.sock", "podman.sock", "buildkitd.sock"),
    )
)


@lru_cache(maxsize=1024)
def fold(path: str) -> PathParts:
    """A path's components, dots and slashes collapsed, in the form in which paths are compared.

    Characters that some file systems ignore (zero-width ones) are dropped. What is equal here may still be two paths
    on a strict file system: that refuses more, never less.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
    parts: list[str] = []
    for part in "".join(c for c in text if unicodedata.category(c) != "Cf").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def relation(path: PathParts, root: PathParts) -> str:
    """How a path lies to a root: ``is``, ``is below`` or ``is above`` it, or an empty string."""
    if path == root:
        return "is"
    if root and path[: len(root)] == root:
        return "is below"
    return "is above" if root[: len(path)] == path else ""
