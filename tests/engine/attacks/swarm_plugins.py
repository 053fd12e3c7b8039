"""Swarm and plugins. On engines that others use too, the requests are such that they are reached, and then refused."""

from __future__ import annotations

from tests.engine.attacks.case import Attack, Refuses, done, endpoint, fetched, says

_NO_SWARM = Refuses(
    "This node is not a swarm manager", "the engine is in no swarm, and says so only when asked by the right path"
)


def _swarm(name: str, method: str, path: str, content: object = None) -> Attack:
    return endpoint(name, method, path, _NO_SWARM, content)  # type: ignore[arg-type]


ATTACKS: list[Attack] = [
    endpoint(
        "begin a swarm",
        "POST",
        "/swarm/init",
        Refuses("must be an IP address or network interface", "its address is none, so that it begins none"),
        {"ListenAddr": "no-such-interface:1", "AdvertiseAddr": "no-such-interface:1"},
    ),
    endpoint(
        "join a swarm",
        "POST",
        "/swarm/join",
        Refuses("must be an IP address or network interface", "its address is none"),
        {"ListenAddr": "no-such-interface:1", "RemoteAddrs": ["<server>"], "JoinToken": "x"},
    ),
    endpoint("leave a swarm", "POST", "/swarm/leave?force=1", Refuses("not part of a swarm", "it is in none")),
    _swarm("look at the swarm", "GET", "/swarm"),
    _swarm("change the swarm", "POST", "/swarm/update?version=1", {"Name": "default"}),
    _swarm("its unlock key", "GET", "/swarm/unlockkey"),
    endpoint("unlock it", "POST", "/swarm/unlock", Refuses("swarm", "it is in none"), {"UnlockKey": "x"}),
    _swarm("list nodes", "GET", "/nodes"),
    _swarm("remove a node", "DELETE", "/nodes/x?force=1"),
    _swarm("change a node", "POST", "/nodes/x/update?version=1", {"Role": "manager"}),
    _swarm("list services", "GET", "/services"),
    _swarm(
        "a service that mounts the host",
        "POST",
        "/services/create",
        {
            "Name": "<fresh>",
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "debian:trixie-slim",
                    "Mounts": [{"Type": "bind", "Source": "/", "Target": "/x"}],
                }
            },
        },
    ),
    _swarm("logs of a service", "GET", "/services/x/logs?stdout=1"),
    _swarm("list tasks", "GET", "/tasks"),
    _swarm("list secrets", "GET", "/secrets"),
    _swarm("make a secret", "POST", "/secrets/create", {"Name": "<fresh>", "Data": "eA=="}),
    _swarm("list configurations", "GET", "/configs"),
    _swarm("make a configuration", "POST", "/configs/create", {"Name": "<fresh>", "Data": "eA=="}),
    endpoint("list plugins", "GET", "/plugins", done(200)),
    endpoint("what a plugin of a host inside wants", "GET", "/plugins/privileges?remote=<server>/x:x", fetched),
    endpoint(
        "install a plugin from a host inside",
        "POST",
        "/plugins/pull?remote=<server>/x:x&name=<fresh>",
        fetched,
        "[]",
        headers={"Content-Type": "application/json"},
    ),  # type: ignore[arg-type]
    endpoint("enable a plugin", "POST", "/plugins/<fresh>/enable?timeout=1", says("plugin", "not found")),
    endpoint("disable a plugin", "POST", "/plugins/<fresh>/disable", says("plugin", "not found")),
    endpoint(
        "configure a plugin",
        "POST",
        "/plugins/<fresh>/set",
        says("plugin", "not found"),
        "[]",
        headers={"Content-Type": "application/json"},
    ),
    endpoint("remove a plugin", "DELETE", "/plugins/<fresh>?force=1", says("plugin", "not found")),
    endpoint("inspect a plugin", "GET", "/plugins/<fresh>/json", says("plugin", "not found")),
    endpoint("push a plugin", "POST", "/plugins/<fresh>/push", says("plugin", "not found")),
    endpoint(
        "make a plugin",
        "POST",
        "/plugins/create?name=<fresh>",
        Refuses("no rootfs found", "its archive is empty"),
        bytes(1024),
        headers={"Content-Type": "application/x-tar"},
    ),
]
