"""Volumes and networks: the host's directories by another name, and ways to others."""

from __future__ import annotations

from tests.engine.attacks.case import Attack, Refuses, done, endpoint, exists, gone, has, query, says
from tests.engine.attacks.lab import Answer, Case


def _bind(device: str) -> dict[str, object]:
    return {"Name": "<fresh>", "Driver": "local", "DriverOpts": {"type": "none", "o": "bind", "device": device}}


def _connected(case: Case, answer: Answer) -> bool:
    document = case.inspect("containers", "<doomed-container>")
    return document is not None and case.fill_text("<network>") in document["NetworkSettings"]["Networks"]


ATTACKS: list[Attack] = [
    endpoint("list volumes", "GET", "/volumes", says("<volume>", status=200)),
    endpoint("inspect another's volume", "GET", "/volumes/<volume>", says("Mountpoint")),
    endpoint("create a volume", "POST", "/volumes/create", exists("volumes"), {"Name": "<fresh>"}),
    endpoint("a volume that is /", "POST", "/volumes/create", has("Options.device", "/", "volumes"), _bind("/")),
    endpoint(
        "a volume that is the socket's directory",
        "POST",
        "/volumes/create",
        has("Options.o", "bind", "volumes"),
        _bind("/var/run"),
    ),
    endpoint(
        "a volume over NFS",
        "POST",
        "/volumes/create",
        has("Options.type", "nfs", "volumes"),
        {"Name": "<fresh>", "DriverOpts": {"type": "nfs", "o": "addr=<server-host>", "device": ":/"}},
    ),
    endpoint(
        "a volume in the host's memory",
        "POST",
        "/volumes/create",
        has("Options.type", "tmpfs", "volumes"),
        {"Name": "<fresh>", "DriverOpts": {"type": "tmpfs", "o": "size=1t", "device": "tmpfs"}},
    ),
    endpoint(
        "remove another's volume", "DELETE", "/volumes/<doomed-volume>?force=1", gone("volumes", "<doomed-volume>")
    ),
    endpoint(
        "prune volumes",
        "POST",
        "/volumes/prune?" + query(filters='{"all":["1"],"label":["attack=<doomed-volume>"]}'),
        gone("volumes", "<doomed-volume>"),
        works_on={"20.10": Refuses("Invalid filter", "20.10 has no filter all")},
    ),
    endpoint(
        "prune volumes, as before 1.42",
        "POST",
        "/v1.41/volumes/prune?" + query(filters='{"label":["attack=<doomed-volume>"]}'),
        gone("volumes", "<doomed-volume>"),
    ),
    endpoint(
        "change a cluster's volume",
        "PUT",
        "/volumes/<volume>?version=1",
        Refuses("swarm", "it is in no swarm"),
        {"Spec": {}},
        works_on={"20.10": Refuses("404", "20.10 knows no such volumes")},
    ),
    endpoint("list networks", "GET", "/networks", says("<network>", status=200)),
    endpoint("inspect another's network", "GET", "/networks/<network>", says("IPAM")),
    endpoint("create a network", "POST", "/networks/create", exists("networks"), {"Name": "<fresh>", "Internal": True}),
    endpoint(
        "a network on the host's interface",
        "POST",
        "/networks/create",
        Refuses("not supported", "this kernel has no macvlan"),
        {"Name": "<fresh>", "Driver": "macvlan"},
    ),
    endpoint(
        "a network over the host's loopback",
        "POST",
        "/networks/create",
        exists("networks"),
        {"Name": "<fresh>", "Internal": True, "Options": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}},
    ),
    endpoint(
        "connect a container to another's network",
        "POST",
        "/networks/<network>/connect",
        _connected,
        {"Container": "<doomed-container>"},
    ),
    endpoint(
        "disconnect a container",
        "POST",
        "/networks/bridge/disconnect",
        done(200),
        {"Container": "<doomed-container>", "Force": True},
    ),
    endpoint("remove another's network", "DELETE", "/networks/<doomed-network>", gone("networks", "<doomed-network>")),
    endpoint(
        "prune networks",
        "POST",
        "/networks/prune?" + query(filters='{"label":["attack=<doomed-network>"]}'),
        gone("networks", "<doomed-network>"),
    ),
]
