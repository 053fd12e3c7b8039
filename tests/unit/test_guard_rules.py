"""The guard's table, rule by rule: what is denied for what, and what is written in place of what was asked."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from urllib.parse import parse_qs

import pytest

from caisson.guard.http1 import CHUNKED, NO_BODY, Framing, RequestHead
from caisson.guard.policy import GuardPolicy
from caisson.guard.rules import ENDPOINTS, Answer, EngineFacts, Forward, Upgrade, answer_body, judge
from caisson.guard.verdict import Denied
from caisson.reference import parse_reference

OWN = "caisson.local/build:abc"
POLICY = GuardPolicy(
    image=parse_reference(OWN),
    labels=(("caisson.build", "abc"),),
    cgroup_parent="/docker/0123",
    memory=256 << 20,
    cpus=1.5,
    api_version=(1, 44),
)
ENGINE = EngineFacts("26.1.5")
TAR = (("content-type", "application/x-tar"),)
UPGRADE = (("connection", "Upgrade"), ("upgrade", "h2c"))
SESSION = (*UPGRADE, ("x-docker-expose-session-uuid", "0123456789abcdefghijklmno"))


def request(method: str, target: str, *headers: tuple[str, str], framing: Framing = NO_BODY) -> RequestHead:
    return RequestHead((("host", "docker"), *headers), method, target, framing)


def denial(head: RequestHead, policy: GuardPolicy = POLICY) -> str:
    with pytest.raises(Denied) as caught:
        judge(head, policy, ENGINE)
    assert caught.value.reason.endswith(".")
    return caught.value.rule


def build(query: str, policy: GuardPolicy = POLICY) -> dict[str, list[str]]:
    rule, decision = judge(request("POST", f"/v1.41/build?{query}", *TAR, framing=CHUNKED), policy, ENGINE)
    assert rule == "build"
    assert isinstance(decision, Forward)
    path, _, text = decision.target.partition("?")
    assert path == "/v1.44/build"
    return parse_qs(text, keep_blank_values=True, strict_parsing=True)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/_ping", "/v1.41/_ping", "/v1.44/_ping"])
@pytest.mark.parametrize(("said", "told"), [("1", "1"), ("2", "2"), ("3", "1"), ("", "1")])
def test_a_ping_is_answered_by_the_guard_with_the_one_version(method: str, path: str, said: str, told: str) -> None:
    rule, decision = judge(request(method, path), POLICY, replace(ENGINE, builder_version=said))
    assert isinstance(decision, Answer)
    headers = dict(decision.headers)
    assert (rule, answer_body(decision)) == ("ping", b"OK")
    assert (headers["Api-Version"], headers["Builder-Version"], headers["Ostype"]) == ("1.44", told, "linux")


def test_version_and_info_are_answered_by_the_guard_and_say_little() -> None:
    for path in ("/version", "/info"):
        _, decision = judge(request("GET", path), POLICY, ENGINE)
        assert isinstance(decision, Answer)
        assert decision.document is not None
        assert "26.1.5" in decision.document.values()
        assert not {"DockerRootDir", "Labels", "HttpProxy", "RegistryConfig"} & decision.document.keys()


def test_a_build_is_written_anew_with_the_policys_values() -> None:
    assert build("") == {
        "version": ["1"],
        "t": [OWN],
        "dockerfile": ["Dockerfile"],
        "rm": ["1"],
        "forcerm": ["1"],
        "memory": [str(256 << 20)],
        "memswap": [str(256 << 20)],
        "cpuperiod": ["100000"],
        "cpuquota": ["150000"],
        "networkmode": ["default"],
        "cgroupparent": ["/docker/0123"],
        "labels": ['{"caisson.build":"abc"}'],
    }


def test_what_a_build_may_ask_for_is_kept() -> None:
    asked = (
        "t=caisson.local%2Fbuild%3Aabc&dockerfile=.%2Fdocker%2FDockerfile.prod&target=two&nocache=1&pull=true&q=1&rm=0"
        "&memory=104857600&memswap=0&cpuquota=50000&cpuperiod=50000&networkmode=none&shmsize=67108864"
        "&buildargs=%7B%22A%22%3A%22b+c%22%2C%22N%22%3Anull%7D&labels=%7B%22caisson.build%22%3A%22abc%22%7D"
    )
    written = build(asked)
    expected = {
        "dockerfile": "docker/Dockerfile.prod", "target": "two", "nocache": "1", "pull": "1", "q": "1", "rm": "1",
        "memory": "104857600", "memswap": "104857600", "cpuquota": "100000", "networkmode": "none",
        "shmsize": "67108864", "buildargs": '{"A":"b c","N":null}',
    }  # fmt: skip
    assert {key: written[key] for key in expected} == {key: [value] for key, value in expected.items()}


def test_what_the_docker_cli_sends_with_every_build_passes() -> None:
    build(
        "buildargs=%7B%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&cpuquota=0&cpusetcpus=&cpusetmems=&cpushares=0"
        "&dockerfile=Dockerfile&labels=%7B%7D&memory=0&memswap=0&networkmode=default&rm=1&shmsize=0&target="
        "&ulimits=%5B%5D&version=1&ulimits=null".replace("&ulimits=null", "")
    )
    build("cachefrom=null&ulimits=null&buildargs=null&labels=null&squash=0&platform=&remote=&forcerm=1")


def test_a_network_of_none_stays_none() -> None:
    policy = replace(POLICY, network_mode="none")
    assert build("networkmode=default", policy)["networkmode"] == ["none"]
    assert build("", policy)["networkmode"] == ["none"]


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("t=other%3A1", "build-name"),
        (f"t={OWN}&t=other", "build-name"),
        ("t=caisson.local/build", "build-name"),
        ("t=", "build-name"),
        ("t=caisson.local/build:abc@sha256:" + "0" * 64, "build-name"),
        ("version=2", "build-version"),
        ("remote=https%3A%2F%2Fexample.com%2Fx.git", "build-remote"),
        ("remote=client-session", "build-remote"),
        ("outputs=%5B%7B%22Type%22%3A%22local%22%7D%5D", "build-outputs"),
        ("extrahosts=a%3A1.2.3.4", "build-extrahosts"),
        ("cachefrom=%5B%22other%3A1%22%5D", "build-cachefrom"),
        ("securityopt=seccomp%3Dunconfined", "build-securityopt"),
        ("securityopt=null", "build-securityopt"),
        ("squash=1", "build-squash"),
        ("session=abc", "build-session"),
        ("buildid=abc", "build-buildid"),
        ("platform=linux%2Farm64", "build-platform"),
        ("ulimits=%5B%7B%22Name%22%3A%22nofile%22%7D%5D", "build-ulimits"),
        ("cpusetcpus=0", "build-cpusetcpus"),
        ("cpusetmems=0", "build-cpusetmems"),
        ("cpushares=1024", "build-cpushares"),
        ("memory=268435457", "build-memory"),
        ("memory=-1", "build-memory"),
        ("memswap=-1", "build-memory"),
        ("memswap=268435457", "build-memory"),
        ("shmsize=268435457", "build-memory"),
        ("cpuquota=150001", "build-cpus"),
        ("cpuquota=-1", "build-cpus"),
        ("cpuquota=100000&cpuperiod=1000", "build-cpus"),
        ("cpuperiod=-1", "build-cpus"),
        ("networkmode=host", "build-network"),
        ("networkmode=container%3Aabc", "build-network"),
        ("networkmode=bridge", "build-network"),
        ("networkmode=HOST", "build-network"),
        ("cgroupparent=%2F", "build-cgroup-parent"),
        ("cgroupparent=%2Fdocker%2F0123%2F..", "build-cgroup-parent"),
        ("labels=%7B%22a%22%3A%22b%22%7D", "build-labels"),
        ("labels=%7B%22caisson.build%22%3A%22other%22%7D", "build-labels"),
        ("labels=%7B%22caisson.build%22%3Anull%7D", "build-value"),
        ("labels=%5B%5D", "build-value"),
        ("buildargs=%7B%22a%22%3A1%7D", "build-value"),
        ("buildargs=%7B%22a%3Db%22%3A%22%22%7D", "build-value"),
        ("buildargs=%7B%22a%22%3A%22b%22%2C%22a%22%3A%22c%22%7D", "json"),
        ("buildargs=%7B%22a%22%3A%22b%22%7D+x", "json"),
        ("buildargs=%7B%22a%22%3A%22%5Cud800%22%7D", "json"),
        ("buildargs=%7B%22a%22%3ANaN%7D", "json"),
        ("buildargs=" + "%5B" * 20000, "json"),
        ("dockerfile=..%2FDockerfile", "build-dockerfile"),
        ("dockerfile=%2Fetc%2Fpasswd", "build-dockerfile"),
        ("dockerfile=a%2F%2Fb", "build-dockerfile"),
        ("dockerfile=a%5Cb", "build-dockerfile"),
        ("dockerfile=.", "build-dockerfile"),
        ("target=-x", "build-value"),
        ("nocache=yes", "build-value"),
        ("memory=1e3", "build-value"),
        ("memory=0x10", "build-value"),
        ("memory=%D9%A1", "build-value"),
        ("memory=1&memory=2", "query"),
        ("Memory=1", "query"),
        ("memory", "query"),
        ("memory=1;t=x", "query"),
        ("%6demory=1", "query"),
        ("memory=%zz", "query"),
        ("target=%ff", "query"),
        ("target=%00", "query"),
        ("target=a%0ab", "query"),
        ("&".join(["t=" + OWN] * 65), "query"),
        ("isolation=hyperv", "query-key"),
        ("entitlements=x", "query-key"),
    ],
)  # fmt: skip
def test_a_build_that_asks_for_more_is_denied_not_changed(query: str, rule: str) -> None:
    assert denial(request("POST", f"/build?{query}", *TAR, framing=CHUNKED)) == rule


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("//_ping", "path"),
        ("/./_ping", "path"),
        ("/v1.41/../_ping", "path"),
        ("/_ping/", "path"),
        ("/%5fping", "path"),
        ("/_ping%00", "path"),
        ("http://docker/_ping", "path"),
        ("*", "path"),
        ("_ping", "path"),
        ("/_ping#x", "path"),
        ("/_ping;x", "path"),
        ("/_PING", "endpoint"),
        ("/v1.24/_ping", "api-version"),
        ("/v1.40/_ping", "api-version"),
        ("/v1.45/_ping", "api-version"),
        ("/v9.41/_ping", "api-version"),
        ("/v1.041/_ping", "endpoint"),
        ("/v1.41/v1.41/_ping", "endpoint"),
        ("/_ping?x=1", "query-key"),
        ("/containers/json", "endpoint"),
        ("/images/debian/json", "other-image"),
        (f"/images/{OWN}-x/json", "other-image"),
        (f"/images/{OWN}/json/json", "other-image"),
        (f"/images/{OWN}@sha256:{'0' * 64}/json", "other-image"),
        ("/images/json", "endpoint"),
        (f"/images/{OWN}/get", "endpoint"),
        ("/images/debian:trixie-slim/history", "other-image"),
    ],
)
def test_a_path_is_plain_and_on_the_list(target: str, rule: str) -> None:
    assert denial(request("GET", target)) == rule


def test_the_builds_own_image_can_be_asked_about() -> None:
    for what, rule in (("json", "image"), ("history", "history")):
        name, decision = judge(request("GET", f"/v1.44/images/{OWN}/{what}"), POLICY, ENGINE)
        assert name == rule
        assert isinstance(decision, Forward)
        assert decision.target == f"/v1.44/images/{OWN}/{what}"
        assert decision.rewrite is not None


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        (request("GET", "/_ping", ("x-forwarded-for", "a")), "header"),
        (request("GET", "/_ping", ("connection", "upgrade")), "header"),
        (request("GET", "/_ping", ("connection", "close, x")), "header"),
        (request("GET", "/_ping", ("upgrade", "h2c")), "header"),
        (request("GET", "/_ping", ("expect", "200-ok")), "header"),
        (request("GET", "/_ping", ("x-registry-auth", "e30=")), "header"),
        (request("GET", "/_ping", framing=Framing("length", 1)), "body"),
        (request("GET", "/_ping", framing=CHUNKED), "body"),
        (request("POST", "/build", framing=CHUNKED), "content-type"),
        (
            request("POST", "/build", ("content-type", "application/x-www-form-urlencoded"), framing=CHUNKED),
            "content-type",
        ),
        (request("POST", "/build", ("content-type", "application/x-tar; x=y"), framing=CHUNKED), "content-type"),
        (request("POST", "/build", *TAR, ("content-encoding", "gzip"), framing=CHUNKED), "header"),
        (request("POST", "/build", *TAR, ("x-http-method-override", "GET"), framing=CHUNKED), "header"),
        (request("POST", "/grpc"), "header"),
        (request("POST", "/grpc", ("connection", "upgrade"), ("upgrade", "tcp")), "upgrade"),
        (request("POST", "/grpc", ("connection", "upgrade")), "upgrade"),
        (request("POST", "/grpc", *UPGRADE, ("expect", "100-continue")), "upgrade"),
        (request("POST", "/grpc", *UPGRADE, framing=Framing("length", 5)), "body"),
        (request("POST", "/session", *UPGRADE), "session-header"),
        (request("POST", "/session", *UPGRADE, ("x-docker-expose-session-uuid", "../../x/aaaaaaa")), "session-header"),
        (request("POST", "/session", *SESSION, ("x-docker-expose-session-sharedkey", "k" * 257)), "session-header"),
        (request("POST", "/session", *SESSION, ("x-docker-expose-session-evil", "x")), "header"),
        (request("DELETE", "/_ping"), "endpoint"),
        (request("OPTIONS", "/build"), "endpoint"),
        (request("CONNECT", "docker:80"), "path"),
    ],
)  # fmt: skip
def test_headers_bodies_and_methods_are_on_the_list(head: RequestHead, rule: str) -> None:
    assert denial(head) == rule


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize("value", ["", encoded("{}"), encoded("null")])
def test_no_credentials_are_none(value: str) -> None:
    judge(request("POST", "/build", *TAR, ("x-registry-config", value), framing=CHUNKED), POLICY, ENGINE)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (encoded('{"docker.io":{"username":"a"}}'), "registry-config"),
        (encoded("{}{}"), "json"),
        (encoded("[]"), "registry-config"),
        ("!!!", "registry-config"),
        ("e" * 5000, "registry-config"),
    ],
)
def test_credentials_do_not_go_through_a_builder(value: str, rule: str) -> None:
    head = request("POST", "/build", *TAR, ("x-registry-config", value), framing=CHUNKED)
    assert denial(head) == rule


def test_streams_are_asked_for_by_the_guards_own_headers() -> None:
    assert judge(request("POST", "/grpc", *UPGRADE), POLICY, ENGINE) == ("grpc", Upgrade("grpc", "/v1.44/grpc"))
    prefix = "x-docker-expose-session-"
    kept, left_out = "/moby.filesync.v1.FileSync/DiffCopy", "/moby.filesync.v1.FileSend/DiffCopy"
    offered = [(f"{prefix}grpc-method", method) for method in (kept, left_out)]
    said = [(f"{prefix}name", "evil"), (f"{prefix}sharedkey", "another's"), *offered]
    _, decision = judge(request("POST", "/session", *SESSION, *said), POLICY, ENGINE)
    assert isinstance(decision, Upgrade)
    assert decision.session == dict(SESSION)[f"{prefix}uuid"]
    assert decision.headers == (
        ("X-Docker-Expose-Session-Name", "caisson"),
        ("X-Docker-Expose-Session-Grpc-Method", kept),
    )


def test_an_endpoint_more_never_denies_more() -> None:
    extra = replace(ENDPOINTS[0], name="extra", path=re.compile(".*"), methods=("GET", "HEAD", "POST"))
    for target in ("/_ping", "/version", "/info", f"/images/{OWN}/json"):
        head = request("GET", target)
        assert judge(head, POLICY, ENGINE, (*ENDPOINTS, extra)) == judge(head, POLICY, ENGINE)


def test_a_table_without_entries_allows_nothing() -> None:
    with pytest.raises(Denied):
        judge(request("GET", "/_ping"), POLICY, ENGINE, ())


def test_until_the_builds_labels_are_known_nothing_can_be_built() -> None:
    early = replace(POLICY, may_build=False)
    for head in (
        request("POST", "/build", *TAR, framing=CHUNKED),
        request("POST", "/grpc", *UPGRADE),
        request("POST", "/session", *SESSION),
    ):
        assert denial(head, early) == "build-early"
    assert judge(request("GET", "/_ping"), early, ENGINE)[0] == "ping"
