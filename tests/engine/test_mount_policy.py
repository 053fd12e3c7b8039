"""The mount policy on real engines: what an engine makes of an alias, the check of what came about refuses.

Every body here is created although the planned check refuses it, as if that check had been passed by.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID, Engine
from caisson.errors import MountRefused
from caisson.mounts import (
    Resolver,
    Verdict,
    builder_policy,
    mounts_of_body,
    mounts_of_inspect,
    require_allowed,
    resolve_for_engine,
)
from caisson.plan import BuildIdentity, Socket, container_body
from caisson.posture import ExpectedPosture, check_posture
from caisson.settings import Settings
from caisson.spec import make_spec, parse_request
from tests.conftest import EngineHost

IMAGE = "debian:trixie-slim"

Create = Callable[[dict[str, Any]], ContainerID]


@pytest.fixture
def name() -> str:
    """A name that this test alone uses: of containers, volumes, images and paths."""
    return f"caisson-mounts-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def api(engine_host: EngineHost, name: str) -> Iterator[docker.APIClient]:
    """The engine without Caisson, for what Caisson never does; removes what has the test's name."""
    client = docker.APIClient(engine_host.docker_host, version="auto")
    yield client
    for container in client.containers(all=True, filters={"name": name}):
        client.remove_container(container["Id"], force=True, v=True)
    for volume in client.volumes(filters={"name": name})["Volumes"] or ():
        client.remove_volume(volume["Name"])
    for image in client.images(name):
        client.remove_image(image["Id"], force=True)
    client.close()


@pytest.fixture
def create(api: docker.APIClient, engine_host: EngineHost, name: str) -> Iterator[Create]:
    made: list[ContainerID] = []
    with DockerEngine(engine_host.docker_host) as engine:

        def make(body: dict[str, Any]) -> ContainerID:
            made.append(engine.create_container(f"{name}-{len(made)}", body))
            return made[-1]

        yield make
        for container in reversed(made):
            engine.remove_container(container)


@pytest.fixture
def socket(engine_host: EngineHost) -> Socket:
    path = engine_host.socket_in_engine or str(engine_host.socket)
    return Socket(path, engine_host.socket.stat().st_gid, on_this_host=str(engine_host.socket))


@pytest.fixture
def resolve(engine_host: EngineHost, socket: Socket) -> Resolver:
    return resolve_for_engine(str(engine_host.socket), socket.path)


@pytest.fixture
def planned(socket: Socket, resolve: Resolver) -> Callable[[dict[str, Any]], tuple[Verdict, ...]]:
    return lambda body: builder_policy(socket.path).check(mounts_of_body(body), resolve)


@pytest.fixture
def effective(engine: Engine, socket: Socket, resolve: Resolver) -> Callable[[ContainerID], tuple[Verdict, ...]]:
    def check(container: ContainerID) -> tuple[Verdict, ...]:
        found = engine.inspect_container(container)
        assert found is not None
        return builder_policy(socket.path).check(mounts_of_inspect(found.raw), resolve)

    return check


Planned = Callable[[dict[str, Any]], tuple[Verdict, ...]]
Effective = Callable[[ContainerID], tuple[Verdict, ...]]


def body(**host_config: Any) -> dict[str, Any]:
    return {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host_config}


def denied(verdicts: tuple[Verdict, ...]) -> set[str]:
    """The rules that refused something; at least one must have."""
    with pytest.raises(MountRefused):
        require_allowed(verdicts)
    return {verdict.rule for verdict in verdicts if not verdict.allowed}


@pytest.mark.parametrize(
    "alias",
    ["/etc", "//etc", "/./etc", "/etc/", "/tmp/../etc", "/etc/../etc", "/var/run/../../etc", "/proc/self/root/etc"],
)
@pytest.mark.parametrize("door", ["Binds", "Mounts"])
def test_an_alias_of_etc_is_refused_as_planned_and_as_it_came_about(
    alias: str, door: str, create: Create, planned: Planned, effective: Effective
) -> None:
    bind = {"Type": "bind", "Source": alias, "Target": "/x", "ReadOnly": True}
    aliased = body(Binds=[f"{alias}:/x:ro"]) if door == "Binds" else body(Mounts=[bind])
    assert denied(planned(aliased)) == {"first-rule"}
    assert denied(effective(create(aliased))) == {"first-rule"}


@pytest.mark.parametrize(
    "root", ["/", "/home", "/root", "/etc/hostname", "/var/run", "/run", "/var/lib", "/dev", "/usr"]
)
def test_a_root_of_the_host_is_refused_as_planned_and_as_it_came_about(
    root: str, create: Create, planned: Planned, effective: Effective
) -> None:
    bound = body(Binds=[f"{root}:/x:ro"])
    rules = denied(planned(bound))
    assert rules == ({"first-rule"} if root.startswith(("/home", "/root", "/etc")) or root == "/" else {"host-roots"})
    assert denied(effective(create(bound))) == rules


def test_a_symlink_to_etc_is_refused_as_planned_and_as_it_came_about(
    engine_host: EngineHost, name: str, create: Create, planned: Planned, effective: Effective
) -> None:
    link = engine_host.root / "tmp" / name
    link.symlink_to("/etc")
    try:
        linked = body(Binds=[f"/tmp/{name}:/x:ro"])
        # Where this host and the engine see different files, the symlink is not seen, and the allowlist refuses.
        rules = {"first-rule"} if engine_host.root == engine_host.root.parent else {"allowlist"}
        assert denied(planned(linked)) == rules
        assert denied(effective(create(linked))) == rules
    finally:
        link.unlink()


def test_a_volume_that_is_a_bind_of_etc_is_refused_as_planned_and_as_it_came_about(
    name: str, create: Create, planned: Planned, effective: Effective
) -> None:
    driver = {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/etc"}}
    volume = {"Type": "volume", "Source": name, "Target": "/x", "VolumeOptions": {"DriverConfig": driver}}
    assert denied(planned(body(Mounts=[volume]))) == {"first-rule"}
    assert denied(effective(create(body(Mounts=[volume])))) & {"first-rule", "kind"}


def test_a_volume_made_earlier_as_a_bind_of_etc_is_refused_though_its_name_says_nothing(
    api: docker.APIClient, name: str, create: Create, planned: Planned, effective: Effective
) -> None:
    api.create_volume(name, driver="local", driver_opts={"type": "none", "o": "bind", "device": "/etc"})
    named = body(Binds=[f"{name}:/x:ro"])
    assert denied(planned(named)) == {"kind"}
    assert denied(effective(create(named))) == {"kind"}


def test_the_volumes_of_another_container_are_refused_as_planned_and_as_they_came_about(
    create: Create, planned: Planned, effective: Effective
) -> None:
    other = create(body(Binds=["/etc:/x"]))
    sharing = body(VolumesFrom=[other])
    assert denied(planned(sharing)) == {"kind"}
    # Both the setting and what came of it.
    assert denied(effective(create(sharing))) == {"kind", "first-rule"}


def test_a_volume_of_the_builders_image_is_refused_as_it_came_about(
    api: docker.APIClient, name: str, create: Create, planned: Planned, effective: Effective
) -> None:
    api.commit(create(body()), repository=name, changes=["VOLUME /data"])
    with_volume = {**body(), "Image": name}
    require_allowed(planned(with_volume))
    assert denied(effective(create(with_volume))) == {"kind"}


@pytest.mark.parametrize(
    "host_config",
    [
        {"Privileged": True},
        {"PidMode": "host"},
        {"IpcMode": "host"},
        {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]},
        {"DeviceCgroupRules": ["c 1:3 rwm"]},
        {"Tmpfs": {"/run": "size=1m"}},
    ],
    ids=str,
)
def test_every_other_door_is_refused_as_planned_and_as_it_came_about(
    host_config: dict[str, Any], create: Create, planned: Planned, effective: Effective
) -> None:
    assert denied(planned(body(**host_config))) == denied(effective(create(body(**host_config))))


@pytest.mark.parametrize(
    "tricked",
    [
        {"Binds": ["/etc:/x"]},
        {"hostconfig": {"binds": ["/etc:/x"]}},
        {"HO\u017fTCONFIG": {"BIND\u017f": ["/etc:/x"]}},
        {"HostConfig": {"bINDS": ["/etc:/x"]}},
        {"HostConfig": {"Mounts": [{"type": "bind", "source": "/etc", "target": "/x"}]}},
    ],
    ids=str,
)
def test_a_key_that_only_the_engine_understands_is_refused_before_it_is_sent(
    tricked: dict[str, Any], create: Create, planned: Planned, effective: Effective
) -> None:
    sent = {"Image": IMAGE, "Cmd": ["true"], **tricked}
    assert denied(planned(sent)) == {"kind"}
    # The engine did understand it: each is a way in.
    assert denied(effective(create(sent))) == {"first-rule"}


# The builder itself


@pytest.fixture
def builder_body(settings: Settings, socket: Socket) -> dict[str, Any]:
    spec = make_spec(parse_request({"repository_url": "https://git.example/a.git", "image": "team/app"}), settings)
    now = datetime.now(UTC)
    identity = BuildIdentity("b1", "run-1", "hash", "host-1", now + timedelta(minutes=5))
    return container_body(spec, identity, socket, settings, now=now)


def test_a_builders_mounts_are_what_was_planned_and_allowed(
    builder_body: dict[str, Any], create: Create, engine: Engine, planned: Planned, effective: Effective
) -> None:
    require_allowed(planned(builder_body))
    container = create(builder_body)
    verdicts = effective(container)
    require_allowed(verdicts)
    found = engine.inspect_container(container)
    assert found is not None
    assert set(mounts_of_inspect(found.raw)) == set(mounts_of_body(builder_body))
    assert [verdict.mount.kind for verdict in verdicts].count("bind") == 1


def test_the_kernel_agrees_that_the_socket_is_all_that_a_builder_has_of_the_host(
    builder_body: dict[str, Any], create: Create, engine: Engine, engine_host: EngineHost
) -> None:
    container = create(builder_body)
    engine.start_container(container)
    found = engine.inspect_container(container)
    assert found is not None
    # Not by way of /var/run: in the builder that is a symlink to /run, which would be followed to this host's.
    assert Path(f"/proc/{found.pid}/root/run/docker.sock").samefile(engine_host.socket)

    own = {f"/{file}" for file in ("etc/resolv.conf", "etc/hostname", "etc/hosts")}
    of_a_disk = {}
    for line in Path(f"/proc/{found.pid}/mountinfo").read_text().splitlines():
        fields = line.split()
        filesystem = fields[fields.index("-") + 1]
        if filesystem not in ("overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"):
            of_a_disk[fields[4]] = fields[5].split(",")
    # Where the host's /run is a tmpfs, so is the socket's mount: then it is not among those of a disk.
    assert of_a_disk.keys() - own <= {"/run/docker.sock"}
    assert all("ro" in options for options in of_a_disk.values())


def test_a_real_builders_posture_fails_only_in_what_is_known(
    builder_body: dict[str, Any], create: Create, engine: Engine, socket: Socket, settings: Settings
) -> None:
    container = create(builder_body)
    engine.start_container(container)
    found = engine.inspect_container(container)
    assert found is not None
    host = builder_body["HostConfig"]
    expected = ExpectedPosture(
        keeper_uid=settings.keeper_uid,
        step_uid=settings.builder_uid,
        socket=socket.path,
        socket_gid=socket.gid,
        memory=host["Memory"],
        cpus=settings.cpus,
        pids=host["PidsLimit"],
        labels=builder_body["Labels"],
        environment=frozenset({"PATH", *(entry.partition("=")[0] for entry in builder_body["Env"])}),
        security_options=engine.info().security_options,
    )
    items = check_posture(found.raw, expected)
    failed = {item.name: item.reason for item in items if item.status == "fail"}
    # The raw socket until there is a guard, and the default bridge until an operator names another network.
    known = {"guarded-socket", "network"}
    if host.get("CgroupnsMode") != "private":
        known.add("cgroup-namespace")
    assert failed.keys() == known, failed
