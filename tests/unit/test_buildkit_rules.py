"""The rules for BuildKit, each by what it denies and what it lets pass, over the bytes of a client."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from caisson.guard.build_ids import BuildIds
from caisson.guard.buildkit_rules import judge
from caisson.guard.buildkit_schema import BRIDGE_SOLVE, CONTROL_SOLVE, RETURN
from caisson.guard.grpc import Call
from caisson.guard.llb import Steps
from caisson.guard.policy import GuardPolicy
from caisson.guard.protobuf import parse
from caisson.guard.verdict import Denied
from tests.buildkit_client import BRIDGE, BUILD, CONTROL, IMAGE, POLICY, SESSION, pb, solve

OWN = {
    "cgroup-parent": "/docker/abc",
    "build-arg:BUILDKIT_CACHE_MOUNT_NS": "team",
    "label:caisson.build": "b1",
    "cmdline": "caisson",
}
CONFIG = json.dumps({"config": {"Labels": {"caisson.build": "b1"}}})


def judged(path: str, message: bytes, policy: GuardPolicy = POLICY) -> bytes:
    """What is sent for it, after the daemon has told of a result."""
    ids = BuildIds()
    ids.name_result(BUILD, "r23z", Steps())
    return judge(Call(path, build_id=BUILD if path.startswith(BRIDGE) else ""), message, policy, ids).message


def rule(path: str, message: bytes, policy: GuardPolicy = POLICY) -> str:
    with pytest.raises(Denied) as caught:
        judged(path, message, policy)
    return caught.value.rule


def bridge(attributes: dict[str, str], frontend: str = "dockerfile.v0") -> bytes:
    return pb((2, frontend), (3, attributes), (5, 1), (6, 1))


def result(config: str = CONFIG, key: str = "containerimage.config", identity: str = "r23z") -> bytes:
    return pb((1, pb((3, pb((1, identity), (2, b"\x0a\x01x"))), (10, {key: config}))))


def test_what_matters_for_safety_is_written_in() -> None:
    given = {"filename": "Dockerfile", "build-arg:A": "1", "no-cache": "", "image-resolve-mode": "local"}
    given["dockerfilekey"] = "dockerfile"
    written = parse(BRIDGE_SOLVE, judged(f"{BRIDGE}Solve", bridge(given)))
    assert written.texts("FrontendOpt") == {**given, **OWN}


def test_what_says_the_same_as_the_policy_passes() -> None:
    own = {key: value for key, value in OWN.items() if key != "cmdline"}
    assert parse(BRIDGE_SOLVE, judged(f"{BRIDGE}Solve", bridge(own))).texts("FrontendOpt") == OWN


def test_a_build_may_ask_for_no_network_and_for_no_other() -> None:
    message = judged(f"{BRIDGE}Solve", bridge({"force-network-mode": "none"}))
    assert parse(BRIDGE_SOLVE, message).texts("FrontendOpt")["force-network-mode"] == "none"
    for other in ("host", "default", "", "None"):
        assert rule(f"{BRIDGE}Solve", bridge({"force-network-mode": other})) == "build-network"


def test_a_build_without_network_has_none() -> None:
    message = judged(f"{BRIDGE}Solve", bridge({}), replace(POLICY, network_mode="none"))
    assert parse(BRIDGE_SOLVE, message).texts("FrontendOpt")["force-network-mode"] == "none"


def test_the_build_itself_passes_as_buildx_sends_it() -> None:
    message = solve((7, {"filename": "Dockerfile"}))
    written = parse(CONTROL_SOLVE, judged(f"{CONTROL}Solve", message))
    assert written.texts("FrontendAttrs") == {"filename": "Dockerfile", **OWN}
    assert written.texts("ExporterAttrs") == {"name": IMAGE}


def test_buildx_can_ask_for_the_bridge_before() -> None:
    message = pb((1, BUILD), (5, SESSION), (8, b""), (11, 1))
    written = parse(CONTROL_SOLVE, judged(f"{CONTROL}Solve", message))
    asked = parse(CONTROL_SOLVE, message)
    assert written == asked.set(Session=written.text("Session"))


def test_a_session_has_another_id_on_the_engine_behind_each_socket() -> None:
    """Under the same one, BuildKit would use the Dockerfile that an earlier build has sent."""
    first, second = BuildIds(), BuildIds()
    call, message = Call(f"{CONTROL}Solve"), pb((1, BUILD), (5, SESSION))
    written = parse(CONTROL_SOLVE, judge(call, message, POLICY, first).message).text("Session")
    headers = dict(first.session_headers(SESSION))
    assert headers == {f"X-Docker-Expose-Session-{name}": written for name in ("Uuid", "Sharedkey")}
    assert judge(call, message, POLICY, first).session == SESSION
    assert len({SESSION, written, first.on_engine("t" * 25), second.on_engine(SESSION)}) == 4
    assert first.secret not in repr(first)


def test_a_dockerfile_that_was_judged_without_arguments_gets_none() -> None:
    ids = BuildIds()
    assert ids.settle_build_args() == {}
    with pytest.raises(Denied, match="one set of arguments"):
        judge(Call(f"{BRIDGE}Solve", build_id=BUILD), bridge({"build-arg:A": "1"}), POLICY, ids)
    assert ids.settle_build_args() == {}


@pytest.mark.parametrize("later", [{}, {"filename": "Dockerfile"}, {"build-arg:BASE": "b"}, {"build-arg:OTHER": "a"}])
def test_all_builds_of_a_socket_have_the_same_arguments(later: dict[str, str]) -> None:
    ids, call = BuildIds(), Call(f"{BRIDGE}Solve", build_id=BUILD)
    judge(call, bridge({"build-arg:BASE": "a", "filename": "Dockerfile"}), POLICY, ids)
    judge(call, bridge({"build-arg:BASE": "a"}), POLICY, ids)
    with pytest.raises(Denied, match="one set of arguments"):
        judge(call, bridge(later), POLICY, ids)


def test_a_build_without_attributes_has_no_arguments_and_others_then_neither() -> None:
    ids, call = BuildIds(), Call(f"{BRIDGE}Solve", build_id=BUILD)
    judge(call, bridge({}), POLICY, ids)
    with pytest.raises(Denied, match="one set of arguments"):
        judge(call, bridge({"build-arg:BASE": "a"}), POLICY, ids)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("cgroup-parent", "/", "build-cgroup-parent"),
        ("force-network-mode", "host", "build-network"),
        ("build-arg:BUILDKIT_CACHE_MOUNT_NS", "", "build-cache-mounts"),
        ("label:caisson.build", "other", "build-labels"),
        ("label:other", "x", "build-labels"),
        ("source", "evil/frontend", "build-frontend"),
        ("cmdline", "evil/frontend", "build-frontend"),
        ("build-arg:BUILDKIT_SYNTAX", "evil/frontend", "build-frontend"),
        ("build-arg:BUILDKIT_MULTI_PLATFORM", "1", "build-attribute"),
        ("build-arg:buildkit_sandbox_hostname", "1", "build-attribute"),
        ("add-hosts", "db=10.0.0.1", "build-attribute"),
        ("context", "https://example.com/x.git", "build-attribute"),
        ("context:base", "docker-image://other", "build-attribute"),
        ("contextkey", "other", "build-attribute"),
        ("dockerfilekey", "context", "build-attribute"),
        ("contextsubdir", "x", "build-attribute"),
        ("local-sessionid:context", "other", "build-attribute"),
        ("cache-imports", "[]", "build-attribute"),
        ("cache-from", "x/y", "build-attribute"),
        ("attest:sbom", "generator=evil", "build-attribute"),
        ("hostname", "x", "build-attribute"),
        ("ulimit", "nofile=1:1", "build-attribute"),
        ("shm-size", "1", "build-attribute"),
        ("platform", "linux/arm64", "build-attribute"),
        ("multi-platform", "true", "build-attribute"),
        ("requestid", "frontend.outline", "build-attribute"),
        ("filename", "../Dockerfile", "build-attribute"),
        ("filename", "/etc/passwd", "build-attribute"),
        ("target", "a b", "build-attribute"),
        ("image-resolve-mode", "other", "build-attribute"),
        ("no-cache", "a;b", "build-attribute"),
    ],
)  # fmt: skip
def test_an_attribute_that_asks_for_more_is_denied(attribute: str, value: str, expected: str) -> None:
    assert rule(f"{BRIDGE}Solve", bridge({attribute: value})) == expected
    assert rule(f"{CONTROL}Solve", solve((7, {attribute: value}))) == expected


def test_where_a_context_comes_from_is_left_out() -> None:
    given = {"vcs:source": "https://example.com/a.git", "vcs:revision": "abc", "vcs:localdir:context": "."}
    assert parse(BRIDGE_SOLVE, judged(f"{BRIDGE}Solve", bridge(given))).texts("FrontendOpt") == OWN


def test_only_a_listed_image_is_a_frontend() -> None:
    policy = replace(POLICY, frontends=frozenset({"docker/dockerfile:1"}))
    given = {"source": "docker/dockerfile:1", "cmdline": "docker/dockerfile:1", "build-arg:BUILDKIT_SYNTAX": "docker/dockerfile:1"}  # fmt: skip  # noqa: E501
    written = parse(BRIDGE_SOLVE, judged(f"{BRIDGE}Solve", bridge(given, "gateway.v0"), policy))
    assert written.texts("FrontendOpt") == {**OWN, **given}
    assert rule(f"{BRIDGE}Solve", bridge(given, "gateway.v0")) == "build-frontend"
    assert rule(f"{BRIDGE}Solve", bridge({**given, "cmdline": "evil"}, "gateway.v0"), policy) == "build-frontend"
    assert rule(f"{BRIDGE}Solve", bridge({"source": "evil", "cmdline": "evil"}, "gateway.v0"), policy) == "build-frontend"  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(2, b"")], "build-llb"),
        ([(2, pb((1, b"\x12\x00")))], "build-llb"),
        ([(6, "gateway.v0")], "build-frontend"),
        ([(8, pb((4, pb((1, "inline")))))], "buildkit-message"),
        ([(9, "network.host")], "build-entitlements"),
        ([(9, "security.insecure")], "build-entitlements"),
        ([(10, {"context": ""})], "build-inputs"),
        ([(12, b"")], "build-source-policy"),
        ([(13, pb((1, "local"))), (13, b"")], "build-exporter"),
        ([(14, 1)], "build-exporter"),
        ([(17, 1)], "build-network"),
        ([(99, 1)], "buildkit-message"),
    ],
)
def test_a_build_that_is_more_than_a_build_is_denied(
    fields: list[tuple[int, str | bytes | int]], expected: str
) -> None:
    assert rule(f"{CONTROL}Solve", solve(*fields)) == expected


@pytest.mark.parametrize("kind", ["local", "tar", "oci", "docker", "image", "cacheonly"])
def test_no_other_exporter(kind: str) -> None:
    assert rule(f"{CONTROL}Solve", solve(kind=kind)) == "build-exporter"
    only_new = pb((1, BUILD), (5, SESSION), (13, pb((1, kind), (2, {"name": IMAGE}))))
    assert rule(f"{CONTROL}Solve", only_new) == "build-exporter"


@pytest.mark.parametrize(
    "attributes",
    [
        {"name": "debian:trixie-slim"},
        {"name": f"{IMAGE},other"},
        {"name": IMAGE, "push": "true"},
        {"name": IMAGE, "unpack": "true"},
        {},
    ],
)
def test_the_image_is_named_as_the_policy_says_and_not_pushed(attributes: dict[str, str]) -> None:
    for message in (
        pb((1, BUILD), (3, "moby"), (4, attributes), (5, SESSION)),
        pb((1, BUILD), (5, SESSION), (13, pb((1, "moby"), (2, attributes)))),
    ):
        assert rule(f"{CONTROL}Solve", message) == "build-name"


def test_no_cache_is_exported_or_imported() -> None:
    for number in (4, 5):
        message = pb((1, BUILD), (5, SESSION), (8, pb((number, pb((1, "registry"))))))
        assert rule(f"{CONTROL}Solve", message) == "build-cache"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (pb((1, b""), (2, "dockerfile.v0")), "build-llb"),
        (pb((1, pb((1, b"\x12\x00")))), "build-llb"),
        (pb((2, "gateway.v0"), (3, {"source": "evil"})), "build-frontend"),
        (pb((2, "")), "build-frontend"),
        (pb((2, "dockerfile.v0"), (12, b"")), "build-cache"),
        (pb((2, "dockerfile.v0"), (13, {"context": ""})), "build-inputs"),
        (pb((2, "dockerfile.v0"), (15, b"")), "build-source-policy"),
        (pb((2, "dockerfile.v0"), (10, 1)), "buildkit-message"),
        (pb((2, "dockerfile.v0"), (14, 1)), "build-evaluate"),
    ],
)
def test_the_bridge_runs_the_dockerfile_and_nothing_else(message: bytes, expected: str) -> None:
    assert rule(f"{BRIDGE}Solve", message) == expected


def test_a_frontend_that_is_not_asked_over_the_bridge_is_denied() -> None:
    assert rule(f"{CONTROL}Solve", solve((6, "dockerfile.v0"), (7, {"filename": "Dockerfile"}))) == "build-frontend"


def test_a_result_of_which_the_daemon_has_not_told_is_denied() -> None:
    ids, other = BuildIds(), "c" * 25
    ids.name_result(other, "r23z", Steps())
    with pytest.raises(Denied, match="was not told"):
        judge(Call(f"{BRIDGE}Return", build_id=BUILD), result(), POLICY, ids)
    assert judge(Call(f"{BRIDGE}Return", build_id=other), result(), POLICY, ids).steps == (Steps(),)


def test_a_socket_has_results_for_one_image() -> None:
    ids = BuildIds()
    for number in range(64):
        ids.name_result(BUILD, f"r{number}", Steps())
    with pytest.raises(Denied, match="enough for one image"):
        ids.name_result(BUILD, "r64", Steps())


def test_a_result_goes_on_without_its_definition() -> None:
    written = parse(RETURN, judged(f"{BRIDGE}Return", result())).message("result")
    assert written is not None
    reference = written.message("ref")
    assert reference is not None
    assert reference.values == {"id": "r23z"}
    assert written.blobs("metadata") == {"containerimage.config": CONFIG.encode()}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{}", "build-labels"),
        ('{"config": {"Labels": {"caisson.build": "other"}}}', "build-labels"),
        ('{"config": {"Labels": {"caisson.build": "b1"}, "labels": {"caisson.build": "x"}}}', "build-result"),
        ('{"config": {"Labels": {"caisson.build": "b1"}, "label\u017f": {}}}', "build-result"),
        ('{"config": {"Labels": {"caisson.build": "b1"}}, "CONFIG": {}}', "build-result"),
        ('{"con\ufb01g": {"Labels": {"caisson.build": "b1"}}}', "build-result"),
        ('{"config": {"Labels": {"caisson.build": "b1"}}, "rootf\u017f": {}}', "build-result"),
        ('{"config": {"Labels": {"caisson.build": "b1"}}, "parent": "sha256:0"}', "build-result"),
        ('{"config": []}', "build-result"),
        ("null", "build-result"),
        ('{"config": {"Labels": {"caisson.build": "b1", "caisson.build": "x"}}}', "build-result"),
        ("[" * 10_000, "build-result"),
        ("no JSON", "build-result"),
    ],
)
def test_a_result_has_the_builds_labels(config: str, expected: str) -> None:
    assert rule(f"{BRIDGE}Return", result(config)) == expected


def test_a_result_that_is_more_or_less_than_one_is_denied() -> None:
    assert rule(f"{BRIDGE}Return", b"") == "build-result"
    assert rule(f"{BRIDGE}Return", result(key="containerimage.inlinecache")) == "build-result"
    assert rule(f"{BRIDGE}Return", result(key="containerimage.base.config")) == "build-result"
    assert rule(f"{BRIDGE}Return", result(identity="../x")) == "build-result"
    assert rule(f"{BRIDGE}Return", result() + pb((2, pb((1, 2))))) == "buildkit-message"
    assert rule(f"{BRIDGE}Return", pb((1, pb((12, {"x": ""}))))) == "buildkit-message"


def returned(*first: tuple[str, bytes], metadata: tuple[tuple[int, dict[str, str]], ...] = ()) -> str:
    """The rule by which a result without a configuration is denied, after these calls; empty: it is allowed."""
    ids = BuildIds()
    try:
        for path, message in first:
            judge(Call(path, build_id=BUILD if path.startswith(BRIDGE) else ""), message, POLICY, ids)
        judge(Call(f"{BRIDGE}Return", build_id=BUILD), pb((1, pb(*metadata))), POLICY, ids)
    except Denied as denied:
        return denied.rule
    return ""


ASKING = f"{CONTROL}Solve", pb((1, BUILD), (5, SESSION), (11, 1))


def test_a_result_that_becomes_an_image_has_a_configuration() -> None:
    platforms = ((10, {"refs.platforms": "{}"}),)
    assert returned((f"{CONTROL}Solve", solve())) == "build-result"
    assert returned((f"{CONTROL}Solve", solve()), metadata=platforms) == "build-result"
    # One of which nobody has said yet whether it becomes an image.
    assert returned() == "build-result"
    # Before each build, buildx asks for the bridge's capabilities: without an exporter, and with an empty result.
    assert returned(ASKING) == ""
    assert returned(ASKING, (f"{CONTROL}Solve", solve())) == "build-exporter"
    assert returned((f"{CONTROL}Solve", solve()), ASKING) == "build-exporter"


def test_an_error_goes_on_without_its_details() -> None:
    message = pb((2, pb((1, 2), (2, "failed"), (3, b"stack"))))
    assert judged(f"{BRIDGE}Return", message) == pb((2, pb((1, 2), (2, "failed"))))


@pytest.mark.parametrize(
    "name",
    ["Control/Prune", "Control/DiskUsage", "Control/Session", "Control/Info", "Control/UpdateBuildHistory",
     "frontend.LLBBridge/NewContainer", "frontend.LLBBridge/ExecProcess", "frontend.LLBBridge/ReleaseContainer",
     "frontend.LLBBridge/ReadFile", "frontend.LLBBridge/ResolveImageConfig", "Control/solve"],
)  # fmt: skip
def test_what_no_build_needs_is_denied(name: str) -> None:
    assert rule(f"/moby.buildkit.v1.{name}", b"") == "buildkit-method"


def test_what_clients_try_is_declined() -> None:
    assert rule(f"{CONTROL}ListenBuildHistory", b"") == "buildkit-declined"
    assert rule("/opentelemetry.proto.collector.trace.v1.TraceService/Export", b"") == "buildkit-declined"


def test_calls_of_the_bridge_name_their_build_and_others_none() -> None:
    for call in (Call(f"{BRIDGE}Ping"), Call(f"{CONTROL}ListWorkers", build_id=BUILD)):
        with pytest.raises(Denied, match="names a build"):
            judge(call, b"", POLICY, BuildIds())


def test_status_names_a_build_and_builds_are_few() -> None:
    assert rule(f"{CONTROL}Status", b"") == "build-id"
    assert rule(f"{CONTROL}Status", pb((1, "short"))) == "build-id"
    ids = BuildIds()
    for number in range(64):
        judge(Call(f"{CONTROL}Status"), pb((1, f"{number:025}")), POLICY, ids)
    with pytest.raises(Denied, match="enough for one image"):
        judge(Call(f"{CONTROL}Status"), pb((1, BUILD)), POLICY, ids)
