"""The mount policy over paths and bodies that nobody thought of. Each test's name is the sentence that it proves."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from caisson.mounts import (
    FIRST_RULE_ROOTS,
    HOST_ROOTS,
    AllowedBind,
    Mount,
    MountPolicy,
    PathKind,
    Resolved,
    builder_policy,
    mounts_of_body,
    mounts_of_inspect,
)

SOCKET = "/var/run/docker.sock"
PATH_KINDS: tuple[PathKind, ...] = ("directory", "file", "socket", "device", "other", "missing", "unreadable")

names = st.text(string.ascii_letters + string.digits + "-_. é", min_size=1, max_size=8).filter(
    lambda name: name.strip(". ") != ""
)
roots = st.sampled_from([root.path for root in (*FIRST_RULE_ROOTS, *HOST_ROOTS)])
path_kinds = st.sampled_from(PATH_KINDS)


@st.composite
def below_or_above(draw: st.DrawFn) -> str:
    """A denied root, a path below one, or one above one."""
    root = draw(roots)
    parts = [part for part in root.split("/") if part]
    if not parts or draw(st.booleans()):
        return "/" + "/".join(parts[: draw(st.integers(0, len(parts)))])
    return "/".join(["", *parts, *draw(st.lists(names, max_size=3))])


@st.composite
def respelt(draw: st.DrawFn, path: str) -> str:
    """The same path in another spelling: slashes, dots, detours, letters' case and form, what a file system ignores."""
    spelt = "/" * draw(st.integers(1, 3))
    for part in (part for part in path.split("/") if part):
        for _ in range(draw(st.integers(0, 2))):
            spelt += draw(st.one_of(st.sampled_from(["./", "/", "../"] if spelt.strip("/.") == "" else ["./", "/"]),
                                    names.map(lambda name: f"{name}/../")))  # fmt: skip
        spelt += draw(st.sampled_from([part, part.upper(), part.swapcase(), _fullwidth(part), f"{part}\u200d"]))
        spelt += "/" * draw(st.integers(1, 2))
    return spelt if draw(st.booleans()) else spelt.rstrip("/") or "/"


def _fullwidth(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and c not in "./" else c for c in text)


def through(links: dict[str, str], kind: PathKind = "directory") -> Any:
    """A resolver of a host with these symlinks."""

    def resolve(path: str) -> Resolved:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for length in range(len(parts), 0, -1):
            if (target := links.get("/" + "/".join(parts[:length]))) is not None:
                return Resolved("/".join([target.rstrip("/"), *parts[length:]]) or "/", kind)
        return Resolved("/" + "/".join(parts), kind)

    return resolve


def bind(source: str, target: str = "/x", *, read_only: bool = True) -> Mount:
    return Mount("bind", source, target, read_only=read_only)


allow_rules = st.builds(
    AllowedBind,
    source=st.one_of(below_or_above(), st.just(SOCKET), names.map(lambda name: f"/data/{name}")),
    target=st.sampled_from(["/x", SOCKET]),
    read_only=st.booleans(),
    kind=path_kinds,
)
policies = st.builds(
    MountPolicy,
    allowed_binds=st.lists(allow_rules, max_size=4).map(tuple),
    allowed_tmpfs=st.lists(st.sampled_from(["/app", "/tmp"]), max_size=2).map(tuple),
)
mounts = st.builds(
    Mount,
    kind=st.sampled_from(["bind", "volume", "tmpfs", "image", "npipe", "cluster", "device", "container", "host"]),
    source=st.one_of(st.text(max_size=12), below_or_above(), st.just(SOCKET), names.map(lambda name: f"/data/{name}")),
    target=st.sampled_from(["/x", SOCKET, "/app", "/tmp", ""]),
    read_only=st.booleans(),
    options=st.lists(st.sampled_from(["rshared", "z", "Options.device=/etc"]), max_size=2).map(tuple),
)


@given(below_or_above().flatmap(respelt), st.booleans(), path_kinds, st.sampled_from(["/x", SOCKET]))
def test_nothing_below_above_or_aliased_to_a_denied_root_is_ever_allowed(
    source: str, read_only: bool, kind: PathKind, target: str
) -> None:
    """But the one socket that is listed, in the one spelling in which it is listed."""
    (verdict,) = builder_policy(SOCKET).check([bind(source, target, read_only=read_only)], through({}, kind))
    assert verdict.allowed == (source == target == SOCKET and read_only and kind == "socket")


@given(st.sampled_from(FIRST_RULE_ROOTS), st.lists(names, max_size=3), st.data(), path_kinds)
def test_no_allowlist_lifts_the_first_rule(root: Any, below: list[str], data: st.DataObject, kind: PathKind) -> None:
    source = data.draw(respelt("/".join([root.path.rstrip("/"), *below]) if root.path != "/" else "/"))
    policy = MountPolicy(allowed_binds=(AllowedBind(source, "/x", kind=kind),), denied_roots=())
    (verdict,) = policy.check([bind(source)], through({}, kind))
    assert (verdict.decision, verdict.rule) == ("deny", "first-rule")


@given(below_or_above(), names, path_kinds)
def test_a_symlink_to_a_denied_root_is_refused_though_it_is_on_the_allowlist(
    target: str, link: str, kind: PathKind
) -> None:
    """But a socket that is listed and lies where sockets live."""
    policy = MountPolicy(allowed_binds=(AllowedBind(f"/data/{link}", "/x", kind=kind),))
    (verdict,) = policy.check([bind(f"/data/{link}")], through({f"/data/{link}": target}, kind))
    assert not verdict.allowed or (kind == "socket" and target.startswith(("/run/", "/var/")))


@given(roots.filter(lambda root: root != "/"), names, st.lists(names, max_size=2))
def test_where_a_denied_root_is_itself_a_symlink_what_it_leads_to_is_refused_too(
    root: str, link: str, below: list[str]
) -> None:
    source = "/".join(["/data", link, *below])
    policy = MountPolicy(allowed_binds=(AllowedBind(source, "/x", kind="directory"),))
    (verdict,) = policy.check([bind(source)], through({root: f"/data/{link}"}))
    assert not verdict.allowed


@given(st.lists(mounts, max_size=6), path_kinds)
def test_an_empty_allowlist_allows_nothing(found: list[Mount], kind: PathKind) -> None:
    assert not any(verdict.allowed for verdict in MountPolicy(denied_roots=()).check(found, through({}, kind)))


@given(policies, allow_rules, st.lists(mounts, max_size=4), path_kinds)
def test_adding_an_allow_rule_never_denies_more(
    policy: MountPolicy, rule: AllowedBind, found: list[Mount], kind: PathKind
) -> None:
    wider = MountPolicy((*policy.allowed_binds, rule), policy.allowed_tmpfs)
    resolve = through({}, kind)
    for narrow, wide in zip(policy.check(found, resolve), wider.check(found, resolve), strict=True):
        assert wide.allowed or not narrow.allowed


@given(policies, st.lists(mounts, max_size=4), path_kinds)
def test_removing_a_denied_root_never_denies_more(policy: MountPolicy, found: list[Mount], kind: PathKind) -> None:
    laxer = MountPolicy(policy.allowed_binds, policy.allowed_tmpfs, HOST_ROOTS[: len(HOST_ROOTS) // 2])
    resolve = through({}, kind)
    for strict, lax in zip(policy.check(found, resolve), laxer.check(found, resolve), strict=True):
        assert lax.allowed or not strict.allowed


@given(policies, st.lists(mounts, max_size=6), path_kinds)
def test_each_mount_is_judged_by_itself_and_every_time_alike(
    policy: MountPolicy, found: list[Mount], kind: PathKind
) -> None:
    resolve = through({}, kind)
    together = policy.check(found, resolve)
    assert [verdict.mount for verdict in together] == found
    assert together == policy.check(found, resolve)
    assert together == tuple(verdict for mount in found for verdict in policy.check([mount], resolve))


@given(policies, mounts.filter(lambda mount: mount.kind == "bind"), path_kinds)
def test_what_is_refused_by_its_root_is_refused_in_its_resolved_spelling_too(
    policy: MountPolicy, mount: Mount, kind: PathKind
) -> None:
    resolve = through({}, kind)
    (verdict,) = policy.check([mount], resolve)
    if verdict.rule == "first-rule":
        # All else as it was: it may also be what its options lead to that is refused.
        (again,) = policy.check([replace(mount, source=resolve(mount.source).path)], resolve)
        assert not again.allowed


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.text(max_size=6), st.sampled_from(["/etc:/x", "host"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["Type", "Source", "a"]), inner)
    ),
    max_leaves=6,
)
DOORS = ("Binds", "Mounts", "VolumesFrom", "Devices", "DeviceRequests", "DeviceCgroupRules", "VolumeDriver", "PidMode",
         "IpcMode", "Cgroup", "Privileged", "Annotations", "StorageOpt", "Runtime", "MaskedPaths")  # fmt: skip
HARMLESS = {"IpcMode": ("none", "private", "shareable"), "Runtime": ("runc",)}
EMPTY: tuple[Any, ...] = (None, "", [], {}, False, 0)


@given(st.sampled_from(DOORS), json_values)
def test_a_door_with_anything_in_it_is_refused_and_none_makes_a_traceback(door: str, value: Any) -> None:
    for found in (
        mounts_of_body({"HostConfig": {door: value}}),
        mounts_of_inspect({"Mounts": [], "HostConfig": {door: value}})
        if door not in ("Runtime", "MaskedPaths")
        else (),
    ):
        verdicts = builder_policy(SOCKET).check(found, through({}, "socket"))
        assert not any(verdict.allowed for verdict in verdicts)
    if value not in (*EMPTY, *HARMLESS.get(door, ())):
        assert mounts_of_body({"HostConfig": {door: value}})


@given(st.text(min_size=1, max_size=12), st.one_of(st.just({}), json_values))
def test_a_key_that_is_not_known_is_refused_whatever_its_value(key: str, value: Any) -> None:
    key = f"{key}?"
    for found in (mounts_of_body({key: value}), mounts_of_body({"HostConfig": {key: value}})):
        assert [mount.kind for mount in found] == ["unknown"]


@given(st.sampled_from([*DOORS, "Tmpfs", "HostConfig", "Volumes", "Image", "Memory"]), st.data())
def test_a_known_key_in_another_case_is_refused(key: str, data: st.DataObject) -> None:
    folded = {"s": "\u017f", "k": "\u212a"}
    other = "".join(data.draw(st.sampled_from([c, c.swapcase(), folded.get(c.lower(), c)])) for c in key)
    if other != key:
        assert [mount.kind for mount in mounts_of_body({other: None})] == ["unknown"]
        assert [mount.kind for mount in mounts_of_body({"HostConfig": {other: None}})] == ["unknown"]
