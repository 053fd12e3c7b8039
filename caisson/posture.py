"""The security posture of a builder: item by item, from what the engine says the container really is. Pure.

``check_posture`` looks at ``GET /containers/{id}/json`` of the created container, not at the plan. What can't be read
there fails. An item is ``not applicable`` only where the host lacks what it is about; the reason says so.

Sources: CIS Docker Benchmark 1.6.0, by its numbers (section 4: images, 5: container run time), and the security
guidelines ("Principle of Least Privilege").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from caisson import posture_checks as checks
from caisson.posture_checks import Check, ExpectedPosture, Status
from caisson.posture_view import View

__all__ = ["CHECKS", "ExpectedPosture", "Item", "PostureItem", "Status", "check_posture"]


@dataclass(frozen=True)
class PostureItem:
    """One item: ``name`` for machines, ``title`` as a statement that is to be true, ``reason`` what was found."""

    name: str
    title: str
    status: Status
    reason: str
    source: str


@dataclass(frozen=True)
class Item:
    """One item of the posture before it is checked."""

    name: str
    title: str
    source: str
    check: Check = field(repr=False)


CHECKS = (
    # What the builder reaches.
    Item("only-the-socket", "The Docker socket is its only mount", "CIS 5.6", checks.only_the_socket),
    Item("mount-read-only", "Its mount is read-only", "Least privilege", checks.mount_read_only),
    Item("mount-propagation", "Its mount carries no mounts out", "CIS 5.20", checks.mount_propagation),
    Item("guarded-socket", "Its socket is a guarded one", "CIS 5.32", checks.guarded_socket),
    Item("devices", "It has no device of the host's", "CIS 5.18", checks.no_devices),
    Item("ports", "It publishes no port", "CIS 5.8, 5.9", checks.no_ports),
    Item("network", "Its network is not the engine's default bridge", "CIS 5.30", checks.own_network),
    # Who it is.
    Item("user", "It runs as users that are not root", "CIS 4.1", checks.user),
    Item("groups", "It has no added group but the socket's", "Least privilege", checks.groups),
    Item("capabilities", "It has no capabilities", "CIS 5.4", checks.capabilities),
    Item("privileged", "It is not privileged", "CIS 5.5", checks.not_privileged),
    Item("no-new-privileges", "It can't gain privileges", "CIS 5.26", checks.no_new_privileges),
    # What confines it.
    Item("seccomp", "A seccomp profile confines it", "CIS 5.22", checks.seccomp),
    Item("apparmor", "An AppArmor profile confines it", "CIS 5.2", checks.apparmor),
    Item("selinux", "An SELinux label confines it", "CIS 5.3", checks.selinux),
    Item("kernel-files", "The kernel's sensitive files are covered", "Docker's defaults", checks.kernel_files),
    Item("network-namespace", "It has its own network namespace", "CIS 5.10", checks.network_namespace),
    Item("pid-namespace", "It has its own process namespace", "CIS 5.16", checks.pid_namespace),
    Item("ipc-namespace", "It has its own IPC namespace", "CIS 5.17", checks.ipc_namespace),
    Item("uts-namespace", "It has its own UTS namespace", "CIS 5.21", checks.uts_namespace),
    Item("user-namespace", "Its users are not the host's", "CIS 5.31", checks.user_namespace),
    Item("cgroup-namespace", "It has its own cgroup namespace", "Least privilege", checks.cgroup_namespace),
    # What it can write and use up.
    Item("read-only-root", "Its root file system is read-only", "CIS 5.13", checks.read_only_root),
    Item("tmpfs", "Each tmpfs is limited, nosuid and nodev", "Least privilege", checks.tmpfs),
    Item("memory", "Its memory is limited", "CIS 5.11", checks.memory),
    Item("swap", "Swap counts to its memory", "CIS 5.11", checks.swap),
    Item("cpus", "Its CPU time is limited", "CIS 5.12", checks.cpus),
    Item("pids", "Its processes are limited", "CIS 5.29", checks.pids),
    Item("cgroup", "Its control group is the one that was planned", "CIS 5.25", checks.cgroup_parent),
    Item("log", "Its log is bounded", "Docker's logging drivers", checks.log),
    # How it ends, and whose it is.
    Item("restart", "It is never restarted", "CIS 5.15", checks.restart),
    Item("init", "Its ended processes are reaped", "Docker's --init", checks.init),
    Item("labels", "Its labels say whose it is", "Caisson", checks.labels),
    Item("deadline", "It is gone by its deadline", "Caisson", checks.deadline),
    Item("environment", "Its environment holds no secret", "CIS 4.10", checks.environment),
)


def check_posture(inspect: Mapping[str, Any], expected: ExpectedPosture) -> tuple[PostureItem, ...]:
    """Each item of ``CHECKS``, in their order. Never raises; never shows a value of the environment."""
    view = View(inspect)
    return tuple(
        PostureItem(item.name, item.title, finding.status, finding.reason, item.source)
        for item in CHECKS
        for finding in (item.check(view, expected),)
    )
