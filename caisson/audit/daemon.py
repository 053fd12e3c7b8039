"""The audit's rules on the engine's own settings, as its API tells them and daemon.json where that can be read. Pure.

What flags of dockerd's command line set is seen only where the API tells it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from caisson.audit.containers import security_options
from caisson.audit.facts import DaemonFacts
from caisson.audit.rules import Found, Rule, when
from caisson.mount_doors import shown
from caisson.posture_view import mapping

OLDEST_MAJOR = 25
"""The oldest major version that its makers (the Moby project) still mend."""
_GOOD_DRIVERS = ("overlay2", "overlayfs", "btrfs", "zfs", "fuse-overlayfs", "stargz", "nydus")
_BAD_DRIVERS = ("aufs", "devicemapper", "vfs", "overlay")
_ICC = "com.docker.network.bridge.enable_icc"


def _info(facts: DaemonFacts) -> Mapping[str, Any]:
    return facts.engine.info if facts.engine is not None else {}


def _bool(key: str, found: str, otherwise: str) -> Callable[[DaemonFacts], Found]:
    """A rule on a truth value of ``GET /info`` that is to be true."""

    def check(facts: DaemonFacts) -> Found:
        value = _info(facts).get(key)
        if not isinstance(value, bool):
            return Found("unknown", f"the engine does not tell {key}")
        return when(value, found, otherwise)

    return check


live_restore = _bool("LiveRestoreEnabled", "on", "containers end when the engine restarts")


def user_namespaces(facts: DaemonFacts) -> Found:
    if "SecurityOptions" not in _info(facts):
        return Found("unknown", "the engine does not tell its security options")
    options = security_options(_info(facts))
    for name, words in (("rootless", "the engine runs as a user that is not root"), ("userns", "userns-remap is on")):
        if any(f"name={name}" in option.split(",") for option in options):
            return Found("pass", words)
    return Found("fail", "root in a container is root on the host, once it is out of it")


def _engine_wide(name: str) -> Callable[[DaemonFacts], Found]:
    """A profile that the engine's containers have unless they say otherwise."""

    def check(facts: DaemonFacts) -> Found:
        if "SecurityOptions" not in _info(facts):
            return Found("unknown", "the engine does not tell its security options")
        options = [set(option.split(",")) for option in security_options(_info(facts))]
        found = [option for option in options if f"name={name}" in option]
        if not found:
            return Found("fail", f"the engine has no {name}")
        return when(not any("profile=unconfined" in option for option in found), "on", "the default is unconfined")

    return check


def inter_container(facts: DaemonFacts) -> Found:
    bridge = facts.engine.bridge if facts.engine is not None else None
    if bridge is None:
        return Found("unknown", "the engine does not tell of its default bridge")
    value = mapping(bridge, "Options").get(_ICC)
    if value not in ("true", "false"):
        return Found("unknown", "its default bridge does not tell")
    return when(value == "false", "off", "containers on the default bridge reach each other's ports")


def api_encryption(facts: DaemonFacts) -> Found:
    info = _info(facts)
    warnings = info.get("Warnings", ...)
    if warnings is None:
        warnings = []
    if not isinstance(warnings, list | tuple):
        return Found("unknown", "the engine does not tell its warnings")
    bad = [str(words) for words in warnings if "API is accessible on" in str(words)]
    told = "; ".join(words.removeprefix("WARNING: ").partition(". ")[0].strip(". \n") for words in bad)
    return when(not bad, "it has no warning of an API without verified TLS", shown_words(told))


def shown_words(text: str) -> str:
    """A sentence of the engine's, cut to what fits a table."""
    return re.sub(r"\s+", " ", text)[:200]


def socket_mode(facts: DaemonFacts) -> Found:
    socket = facts.socket
    if not socket.exists:
        return Found("unknown", f"{socket.path}: {socket.error or 'it does not exist'}")
    return when(
        not socket.mode & 0o007,
        f"mode {socket.mode:04o}, group {socket.group or socket.gid}",
        f"every user of this host may use it, and so is as good as root (mode {socket.mode:04o})",
    )


def config_mode(facts: DaemonFacts) -> Found:
    """Judged by whoever could read it; what can't be looked at is unknown."""
    file = facts.config.file
    if not file.exists:
        if file.error == "it does not exist":
            return Found("not applicable", f"there is no {file.path}")
        return Found("unknown", f"{file.path}: {file.error or 'it was not looked at'}")
    return when(
        not file.mode & 0o022 and file.uid == 0,
        f"mode {file.mode:04o}, root's",
        f"mode {file.mode:04o}, owner {file.uid}: whoever may write it may set what the engine does",
    )


def _configured(facts: DaemonFacts, key: str, judge: Callable[[Any], Found]) -> Found:
    config = facts.config
    if config.values is None:
        return Found("unknown", f"the engine's API does not tell, and {config.problem or 'daemon.json was not read'}")
    return judge(config.values.get(key))


def log_limits(facts: DaemonFacts) -> Found:
    driver = _info(facts).get("LoggingDriver")
    if not isinstance(driver, str) or not driver:
        return Found("unknown", "the engine does not tell its logging driver")
    if driver == "local":
        return Found("pass", "local, which is bounded by itself")
    if driver != "json-file":
        return Found("pass", f"{shown(driver)}, which keeps logs outside of the engine's files")

    def judge(options: Any) -> Found:
        size = options.get("max-size") if isinstance(options, Mapping) else None
        good = isinstance(size, str) and size not in ("", "-1")
        return when(good, f"json-file, {size}", "json-file without max-size fills the disk")

    return _configured(facts, "log-opts", judge)


def default_ulimits(facts: DaemonFacts) -> Found:
    def judge(limits: Any) -> Found:
        names = sorted(map(str, limits)) if isinstance(limits, Mapping) else []
        return when(bool(names), ", ".join(map(shown, names)), "none is set: containers have dockerd's own")

    return _configured(facts, "default-ulimits", judge)


def no_new_privileges(facts: DaemonFacts) -> Found:
    if "name=no-new-privileges" in security_options(_info(facts)):
        return Found("pass", "on")
    return _configured(
        facts,
        "no-new-privileges",
        lambda value: when(value is True, "on", "a container that does not ask for it can gain privileges"),
    )


def userland_proxy(facts: DaemonFacts) -> Found:
    return _configured(
        facts,
        "userland-proxy",
        lambda value: when(value is False, "off", "each published port has a process of root's"),
    )


def experimental(facts: DaemonFacts) -> Found:
    value = _info(facts).get("ExperimentalBuild")
    if not isinstance(value, bool):
        return Found("unknown", "the engine does not tell")
    return when(not value, "off", "on")


def insecure_registries(facts: DaemonFacts) -> Found:
    registries = _info(facts).get("RegistryConfig")
    if not isinstance(registries, Mapping):
        return Found("unknown", "the engine does not tell its registries")
    indexes, networks = registries.get("IndexConfigs"), registries.get("InsecureRegistryCIDRs")
    if not isinstance(indexes, Mapping | None) or not isinstance(networks, list | tuple | None):
        return Found("unknown", "its registries can't be read")
    insecure = [
        str(name)
        for name, index in (indexes or {}).items()
        if not isinstance(index, Mapping) or index.get("Secure") is not True
    ]
    insecure += [str(network) for network in networks or () if not _is_loopback(str(network))]
    return when(not insecure, "none but loopback", f"{', '.join(map(shown, insecure))}")


def _is_loopback(network: str) -> bool:
    try:
        return ipaddress.ip_network(network, strict=False).is_loopback
    except ValueError:
        return False


def storage_driver(facts: DaemonFacts) -> Found:
    driver = _info(facts).get("Driver")
    if driver in _BAD_DRIVERS:
        return Found("fail", f"{driver} is slow, wastes disk, or is no longer kept up")
    return Found("pass", str(driver)) if driver in _GOOD_DRIVERS else Found("unknown", f"{shown(str(driver))}")


def version(facts: DaemonFacts) -> Found:
    told = facts.engine.version.get("Version") if facts.engine is not None else None
    major = re.match(r"(\d{1,4})\.\d", told) if isinstance(told, str) else None
    if major is None:
        return Found("unknown", "the engine does not tell its version")
    return when(
        int(major[1]) >= OLDEST_MAJOR, shown(str(told)), f"{shown(str(told))}: its makers mend {OLDEST_MAJOR} and later"
    )


def iptables(facts: DaemonFacts) -> Found:
    return _configured(
        facts,
        "iptables",
        lambda value: when(value is not False, "the engine keeps its rules", "networks are not kept apart"),
    )


def swarm(facts: DaemonFacts) -> Found:
    state = mapping(_info(facts), "Swarm").get("LocalNodeState")
    if not isinstance(state, str):
        return Found("unknown", "the engine does not tell")
    return when(state in ("", "inactive"), "off", "on: two more ports and the swarm's keys are on this host")


DAEMON_RULES: tuple[Rule[DaemonFacts], ...] = (
    Rule(
        "api-tls",
        "Its API is nowhere on TCP without TLS and client certificates",
        "high",
        "CIS 2.7",
        "Remove the host tcp:// from daemon.json, or set tlsverify, tlscacert, tlscert and tlskey.",
        api_encryption,
    ),
    Rule(
        "socket-mode",
        "Its socket is for root and one group only",
        "high",
        "CIS 3.16",
        "chmod o= the socket.",
        socket_mode,
    ),
    Rule(
        "config-mode",
        "Its daemon.json is root's, and nobody else may write it",
        "high",
        "CIS 3.17, 3.18",
        "chown root:root and chmod 0644 the file.",
        config_mode,
    ),
    Rule(
        "daemon-seccomp",
        "Its default seccomp profile confines containers",
        "high",
        "CIS 2.17",
        "Remove seccomp-profile=unconfined from daemon.json; run a kernel with seccomp.",
        _engine_wide("seccomp"),
    ),
    Rule(
        "user-namespaces",
        "Containers' root is not the host's",
        "medium",
        "CIS 2.1, 2.9",
        "Set userns-remap in daemon.json, or run a rootless engine.",
        user_namespaces,
    ),
    Rule(
        "icc",
        "Containers on the default bridge don't reach each other",
        "medium",
        "CIS 2.2",
        'Set "icc": false in daemon.json, and use networks of your own.',
        inter_container,
    ),
    Rule(
        "daemon-no-new-privileges",
        "Containers can't gain privileges unless they ask to",
        "medium",
        "CIS 2.14",
        'Set "no-new-privileges": true in daemon.json.',
        no_new_privileges,
    ),
    Rule(
        "insecure-registries",
        "It takes no image without TLS",
        "medium",
        "CIS 2.5",
        "Remove insecure-registries from daemon.json; give the registry a certificate.",
        insecure_registries,
    ),
    Rule(
        "engine-version",
        "Its version is one that is still mended",
        "medium",
        "CIS 1.2.2",
        "Upgrade the engine.",
        version,
    ),
    Rule(
        "log-limits",
        "Logs of containers are bounded by default",
        "medium",
        "CIS 2.13; Docker's logging drivers",
        'Set "log-driver": "local", or log-opts with max-size and max-file, in daemon.json.',
        log_limits,
    ),
    Rule(
        "live-restore",
        "Containers outlive a restart of the engine",
        "low",
        "CIS 2.15",
        'Set "live-restore": true in daemon.json.',
        live_restore,
    ),
    Rule(
        "default-ulimits",
        "Containers have limits of their own for open files and processes",
        "low",
        "CIS 2.8",
        "Set default-ulimits in daemon.json.",
        default_ulimits,
    ),
    Rule(
        "iptables",
        "It keeps networks apart",
        "medium",
        "CIS 2.4",
        'Remove "iptables": false from daemon.json.',
        iptables,
    ),
    Rule(
        "userland-proxy",
        "Published ports need no process of root's",
        "low",
        "CIS 2.16",
        'Set "userland-proxy": false in daemon.json.',
        userland_proxy,
    ),
    Rule(
        "storage-driver",
        "Its storage driver is one that is kept up",
        "medium",
        "CIS 2.6",
        'Set "storage-driver": "overlay2" in daemon.json.',
        storage_driver,
    ),
    Rule(
        "experimental",
        "It has no experimental features",
        "low",
        "CIS 2.18",
        'Remove "experimental" from daemon.json.',
        experimental,
    ),
    Rule("swarm", "It is no swarm node", "low", "CIS 5.1", "`docker swarm leave`, where no swarm is wanted.", swarm),
)
