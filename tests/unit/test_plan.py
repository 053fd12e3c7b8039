"""The builder's body and the build's command line, decided without Docker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from caisson.engine import EngineInfo
from caisson.errors import LimitsNotEnforceable, RequestInvalid
from caisson.plan import KEEPER, BuildIdentity, Socket, build_command, choose_builder, container_body
from caisson.request import Builder
from caisson.settings import Settings, load_settings
from caisson.spec import BuildSpec, make_spec, parse_request

NOW = datetime(2030, 1, 2, 3, 0, 5, tzinfo=UTC)
IDENTITY = BuildIdentity("b1", "run-1", "hash", "host-1", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
SOCKET = Socket("/var/run/docker.sock", 999, on_this_host="/var/run/docker.sock")


def _engine(api: str, driver: str = "cgroupfs") -> EngineInfo:
    return EngineInfo(
        version=api,
        api_version=api,
        storage_driver="overlay2",
        cgroup_driver=driver,
        cgroup_version=1,
        data_root="/var/lib/docker",
        security_options=(),
        cpus=2,
        memory=1,
        containerd_store=False,
    )


def _settings(**changes: Any) -> Settings:
    return load_settings(_env_file=None, **changes)


def _spec(settings: Settings | None = None, **fields: Any) -> BuildSpec:
    request = {"repository_url": "https://h.example/a.git", "image": "team/app", **fields}
    return make_spec(parse_request(request), settings or _settings())


def test_least_privilege_holds_for_every_spec() -> None:
    settings = _settings()
    host = container_body(_spec(limits={"cpus": 1.5, "memory": "1g", "pids": 99}), IDENTITY, SOCKET, settings, now=NOW)[
        "HostConfig"
    ]
    (mount,) = host["Mounts"]
    assert mount == {
        "Type": "bind",
        "Source": "/var/run/docker.sock",
        "Target": "/var/run/docker.sock",
        "ReadOnly": True,
    }
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"]
    assert host["AutoRemove"]
    assert (host["Memory"], host["MemorySwap"]) == (1 << 30, 1 << 30)
    assert (host["NanoCpus"], host["PidsLimit"]) == (1_500_000_000, 99)
    assert host["GroupAdd"] == ["999"]
    assert not {"Privileged", "CapAdd", "Devices", "Binds", "VolumesFrom", "PidMode"} & set(host)
    assert "nosuid" in host["Tmpfs"]["/app"]
    assert f"size={512 << 20}" in host["Tmpfs"]["/app"]


@pytest.mark.parametrize(("before", "seconds"), [(150, "150"), (0.4, "1"), (-20, "1")])
def test_the_builder_ends_by_itself_at_the_deadline_that_it_is_labelled_with(before: float, seconds: str) -> None:
    now = IDENTITY.deadline - timedelta(seconds=before)
    body = container_body(_spec(), IDENTITY, SOCKET, _settings(), now=now)
    assert [*body["Entrypoint"], *body["Cmd"]] == [*KEEPER, seconds]
    assert body["Labels"]["caisson.deadline"] == "2030-01-02T03:04:05+00:00"
    assert body["Labels"]["caisson.flow-run"] == "run-1"


def test_the_process_that_keeps_the_deadline_is_not_of_the_steps_user() -> None:
    settings = _settings(builder_uid=20000)
    body = container_body(_spec(), IDENTITY, SOCKET, settings, now=NOW)
    assert (body["User"], settings.step_user) == ("20001:20001", "20000:20000")
    assert "uid=20000,gid=20000" in body["HostConfig"]["Tmpfs"]["/app"]


def test_profiles_and_labels_of_the_host_come_from_settings() -> None:
    settings = _settings(apparmor_profile="caisson", selinux_label="type:container_t")
    options = container_body(_spec(), IDENTITY, SOCKET, settings, now=NOW, seccomp='{"x":1}')["HostConfig"][
        "SecurityOpt"
    ]
    assert options == ["no-new-privileges:true", 'seccomp={"x":1}', "apparmor=caisson", "label=type:container_t"]


def test_a_workspace_in_the_layer_gives_up_the_read_only_root() -> None:
    host = container_body(_spec(), IDENTITY, SOCKET, _settings(workspace="layer"), now=NOW)["HostConfig"]
    assert not host["ReadonlyRootfs"]
    assert "/app" not in host["Tmpfs"]


@pytest.mark.parametrize(
    ("asked", "api", "secrets", "builder", "holds"),
    [
        (Builder.AUTO, "1.45", False, Builder.BUILDKIT, True),
        (Builder.AUTO, "1.45", True, Builder.BUILDKIT, True),
        (Builder.AUTO, "1.41", False, Builder.CLASSIC, True),
        (Builder.AUTO, "1.41", True, Builder.BUILDKIT, False),
        (Builder.BUILDKIT, "1.41", False, Builder.BUILDKIT, False),
        (Builder.BUILDKIT, "1.42", False, Builder.BUILDKIT, True),
        (Builder.CLASSIC, "1.45", False, Builder.CLASSIC, True),
    ],
)
def test_which_builder_is_chosen(asked: Builder, api: str, secrets: bool, builder: Builder, holds: bool) -> None:
    chosen = choose_builder(asked, engine=_engine(api), needs_buildkit=secrets, require_limits=False)
    assert (chosen.builder, chosen.holds_steps) == (builder, holds)
    if holds:
        assert choose_builder(asked, engine=_engine(api), needs_buildkit=secrets, require_limits=True) == chosen
    else:
        with pytest.raises(LimitsNotEnforceable):
            choose_builder(asked, engine=_engine(api), needs_buildkit=secrets, require_limits=True)


def test_the_classic_builder_has_no_nested_groups_under_systemd() -> None:
    chosen = choose_builder(
        Builder.CLASSIC, engine=_engine("1.45", "systemd"), needs_buildkit=False, require_limits=False
    )
    assert not chosen.holds_steps


def test_steps_are_not_held_where_the_host_wants_the_cache_instead() -> None:
    engine = _engine("1.45")
    chosen = choose_builder(Builder.AUTO, engine=engine, needs_buildkit=False, require_limits=False, hold_steps=False)
    assert not chosen.holds_steps
    with pytest.raises(LimitsNotEnforceable):
        choose_builder(Builder.AUTO, engine=engine, needs_buildkit=False, require_limits=True, hold_steps=False)


def test_classic_with_secrets_is_refused() -> None:
    with pytest.raises(RequestInvalid):
        choose_builder(Builder.CLASSIC, engine=_engine("1.45"), needs_buildkit=True, require_limits=False)


def _command(builder: Builder, **fields: Any) -> tuple[list[str], dict[str, str]]:
    return build_command(
        _spec(**fields),
        builder=builder,
        reference="caisson.local/build:b1",
        cgroup_parent="/docker/abc",
        labels={"a": "b"},
        secret_env={name: f"V{number}" for number, name in enumerate(fields.get("secrets", ()))},
    )


@pytest.mark.parametrize("builder", [Builder.BUILDKIT, Builder.CLASSIC])
def test_every_value_of_the_request_is_one_argument_and_no_option(builder: Builder) -> None:
    argv, _ = _command(
        builder, build_args={"A": "--privileged x"}, target="t", context="sub", dockerfile="D", no_cache=True
    )
    assert "--build-arg=A=--privileged x" in argv
    assert argv[-2:] == ["--file=/app/sub/D", "/app/sub"]
    assert {"--target=t", "--no-cache", "--label=a=b", "--cgroup-parent=/docker/abc"} <= set(argv)
    assert "--tag=caisson.local/build:b1" in argv
    assert not [argument for argument in argv[3:-1] if not argument.startswith("--")]


def test_secrets_are_names_on_the_command_line_never_values() -> None:
    argv, env = _command(Builder.BUILDKIT, secrets=["npm"])
    assert "--secret=id=npm,env=V0" in argv
    assert "V0" not in env


def test_classic_steps_have_limits_of_their_own_too() -> None:
    argv, env = _command(Builder.CLASSIC, limits={"memory": "1g", "cpus": 0.5})
    assert {f"--memory={1 << 30}", f"--memory-swap={1 << 30}", "--cpu-quota=50000"} <= set(argv)
    assert env["DOCKER_BUILDKIT"] == "0"
