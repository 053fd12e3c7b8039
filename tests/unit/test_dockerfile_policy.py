"""What a Dockerfile is denied, by which rule, and which setting allows it: each rule both ways."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from caisson.guard.dockerfile_hosts import listed
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_policy import DockerfilePolicy, Finding, check_dockerfile
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.dockerfile_words import DockerfileError
from caisson.reference import parse_repository
from caisson.spec import RESERVED_REGISTRY

POLICY = DockerfilePolicy(Dialect.HEREDOCS, RESERVED_REGISTRY, unjudged_hosts=True)
BUILDKIT, CLASSIC = BuildInputs("buildkit", platform="linux/amd64"), BuildInputs("classic", platform="linux/amd64")


def check(text: str, policy: DockerfilePolicy = POLICY, inputs: BuildInputs = BUILDKIT) -> tuple[Finding, ...]:
    return check_dockerfile(text, policy, inputs)


def rules(text: str, policy: DockerfilePolicy = POLICY, inputs: BuildInputs = BUILDKIT) -> list[str]:
    return [finding.rule for finding in check(text, policy, inputs)]


def test_an_ordinary_dockerfile_is_allowed() -> None:
    text = """\
ARG VERSION=3.12
FROM --platform=$BUILDPLATFORM python:${VERSION}-slim AS build
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=token pip install .
ADD https://example.com/${VERSION}/data.tar.gz /data/
COPY <<EOF /etc/app.conf
FROM = ADD http://127.0.0.1/
EOF
FROM gcr.io/distroless/python3@sha256:DIGEST
COPY --from=build /app /app
USER 1000
ENTRYPOINT ["/app"]
"""
    assert check(text.replace("DIGEST", "a" * 64)) == ()


def test_findings_name_line_reason_and_setting_in_the_order_of_lines() -> None:
    text = "FROM caisson.local/x:1\nRUN --network=host true\nADD http://user:secret@10.0.0.1/x /\n"
    findings = check(text)
    assert [(finding.line, finding.rule, finding.setting) for finding in findings] == [
        (1, "image-reserved", "shared_repositories"),
        (2, "run-host-network", "host_network"),
        (3, "add-private-host", "allowed_hosts"),
    ]
    assert "secret" not in str(findings)
    assert str(findings[1]) == (
        "Dockerfile line 2: RUN --network='host' would run in the host's network (setting: host_network)"
    )
    assert findings[0].verdict.decision == "deny"


@pytest.mark.parametrize(
    ("text", "build_args", "line"),
    [
        ("# syntax=docker/dockerfile:1\nFROM debian", (), 1),
        ("FROM debian", (("BUILDKIT_SYNTAX", " docker/dockerfile:1 x"),), 0),
    ],
)
def test_a_frontend_has_to_be_listed(text: str, build_args: tuple[tuple[str, str], ...], line: int) -> None:
    inputs = replace(BUILDKIT, build_args=build_args)
    assert [(finding.rule, finding.line) for finding in check(text, inputs=inputs)] == [("frontend-image", line)]
    assert rules(text, inputs=replace(inputs, builder="classic")) == []


def test_a_frontend_in_another_comment_style_is_denied_with_the_file() -> None:
    with pytest.raises(DockerfileError, match="line 1: '//' is no instruction"):
        check("// syntax=docker/dockerfile:1\nFROM debian")


@pytest.mark.parametrize(
    ("entry", "syntax", "allowed"),
    [
        ("docker/dockerfile:1", "docker/dockerfile:1", True),
        ("docker.io/docker/dockerfile:1", "docker/dockerfile:1 --debug", True),
        ("docker/dockerfile:1", "docker/dockerfile:1@sha256:" + "a" * 64, False),
        ("docker/dockerfile@sha256:" + "a" * 64, "docker/dockerfile:1@sha256:" + "a" * 64, True),
        ("docker/dockerfile:1", "docker/dockerfile:1.0", False),
        ("docker/dockerfile:1", "docker/dockerfile", False),
        ("docker/dockerfile:1", "docker/dockerfile:1,", False),
    ],
)
def test_which_frontend_an_entry_allows(entry: str, syntax: str, allowed: bool) -> None:
    policy = replace(POLICY, frontends=(entry,))
    assert rules(f"# syntax={syntax}\nFROM debian", policy) == ([] if allowed else ["frontend-image"])


def test_a_listed_frontend_reads_heredocs_also_on_an_old_engine_where_it_is_followed() -> None:
    guarded = replace(POLICY, dialect=Dialect.NO_HEREDOCS, frontends=("docker/dockerfile:1",))
    raw = replace(guarded, follows_syntax=True)
    text = "# syntax=docker/dockerfile:1\nFROM debian\nRUN << RUN\nADD http://10.0.0.1/ /\nRUN\n"
    assert rules(text, raw) == []
    assert rules(text, raw, CLASSIC) == ["add-private-host"]
    # The guard has the engine's own reader take the file, and that one knows no heredocs.
    assert rules(text, guarded) == ["add-private-host"]
    argument = replace(BUILDKIT, build_args=(("BUILDKIT_SYNTAX", "docker/dockerfile:1"),))
    assert rules(text, guarded, argument) == []


@pytest.mark.parametrize("entry", ["docker/dockerfile", "Not an image", ""])
def test_a_frontend_without_a_version_is_no_setting(entry: str) -> None:
    with pytest.raises(ValueError, match="frontends: "):
        replace(POLICY, frontends=(entry,))


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        ("caisson.local/builds/1:latest", "image-reserved"),
        ("caisson.local:443/x", "image-reserved"),
        ("CAISSON.local/x", "image-reserved"),
        ("team/other", "image-foreign"),
        ("docker.io/team/other:1", "image-foreign"),
        ("index.docker.io/team/other:1@sha256:" + "b" * 64, "image-foreign"),
        ("sha256:" + "a" * 64, "image-id"),
        ("sha256:abc", "image-id"),
        ("a" * 64, "image-id"),
        ("beef", "image-id"),
        ("Debian", "image-unreadable"),
        ("debian:", "image-unreadable"),
        ("http://debian", "image-unreadable"),
        ("debian", None),
        ("beef:1", None),
        ("team/others", None),
        ("scratch", None),
    ],
)
def test_images_that_no_build_reads_by_any_way(image: str, rule: str | None) -> None:
    policy = replace(POLICY, foreign_repositories=frozenset({parse_repository("team/other")}))
    expected = [] if rule is None else [rule]
    assert rules(f"FROM {image}", policy) == expected
    assert rules(f"ARG A={image}\nFROM $A", policy) == expected
    assert rules(f"FROM scratch\nCOPY --from={image} a /", policy) == expected
    assert rules(f"FROM scratch\nRUN --mount=type=cache,from={image},target=/a true", policy) == expected
    assert rules(f"FROM scratch\nONBUILD COPY --from={image} a /", policy) == expected


@pytest.mark.parametrize(
    ("foreign", "image"),
    [
        ("registry.example/a", "registry.example:443/a:1"),
        ("registry.example/a", "registry.example:80/a"),
        ("registry.example:443/a", "registry.example/a"),
        ("registry.example/a", "REGISTRY.example/a@sha256:" + "b" * 64),
        ("team/other", "DOCKER.io/team/other"),
        ("1.2.3.4:5000/a", "0x01020304:5000/a"),
        ("[2600::1]:5000/a", "[2600:0::1]:5000/a"),
    ],
)
def test_another_spelling_of_a_registry_is_no_other_registry(foreign: str, image: str) -> None:
    policy = replace(POLICY, foreign_repositories=frozenset({parse_repository(foreign)}))
    assert "image-foreign" in rules(f"FROM {image}", policy)
    assert "image-foreign" not in rules("FROM registry.example:5001/a\nFROM registry.example/b", policy)


def test_a_build_arg_can_name_the_image() -> None:
    inputs = replace(BUILDKIT, build_args=(("A", "caisson.local/x"),))
    assert rules("ARG A=debian\nFROM $A", inputs=inputs) == ["image-reserved"]


def test_shared_repositories_may_be_read() -> None:
    shared = frozenset({parse_repository("team/other"), parse_repository("caisson.local/base")})
    policy = replace(POLICY, foreign_repositories=shared, shared_repositories=shared, base_images=())
    assert rules("FROM team/other:1\nFROM caisson.local/base:2", policy) == []


@pytest.mark.parametrize(
    ("registry", "spellings"),
    [
        ("127.0.0.1:5000", ("127.0.0.1:5000", "127.1:5000", "0x7f000001:5000", "2130706433:5000")),
        ("169.254.169.254", ("169.254.169.254", "169.254.169.254:443", "169.254.43518")),
        ("[::1]:5000", ("[::1]:5000", "[0:0::1]:5000")),
        ("[::ffff:a00:1]", ("[::ffff:a00:1]", "[::ffff:a00:1]:443")),
        ("localhost:8080", ("localhost:8080", "LOCALHOST:8080")),
        ("localhost", ("localhost", "localhost:443")),
        ("registry:5000", ("registry:5000", "Registry:5000")),
        ("registry.corp", ("registry.corp", "REGISTRY.corp:443")),
        ("host.docker.internal:80", ("host.docker.internal:80",)),
    ],
)
def test_a_registry_inside_is_asked_by_nothing_that_does_not_list_it(registry: str, spellings: tuple[str, ...]) -> None:
    allowing, another = (replace(POLICY, registries=(each,)) for each in (registry, "10.9.8.7:5000"))
    for name in (*spellings, f"{spellings[0]}/deep"):
        for image in (f"{name}/x", f"{name}/a/b:c", f"{name}/x@sha256:{'a' * 64}"):
            for text in (
                f"FROM {image}",
                f"ARG A={image}\nFROM $A",
                f"FROM scratch\nCOPY --from={image} a /",
                f"FROM scratch\nRUN --mount=type=bind,from={image} true",
                f"FROM scratch\nONBUILD RUN --mount=type=bind,from={image} true",
            ):
                for inputs in (BUILDKIT, CLASSIC):
                    [finding] = check(text, another, inputs)
                    assert (finding.rule, finding.setting) == ("image-private-registry", "registries")
                    assert rules(text, allowing, inputs) == []


def test_a_listed_registry_is_listed_with_its_port() -> None:
    policy = replace(POLICY, registries=("10.0.0.1:5000", "registry.corp"))
    for image in ("10.0.0.1/x", "10.0.0.1:5001/x", "registry.corp:80/x", "other.corp/x", "10.0.0.1:50000/x"):
        assert rules(f"FROM {image}", policy) == ["image-private-registry"]


def test_a_registry_that_programs_read_differently_is_none() -> None:
    assert rules("FROM 1.2.3.256:5000/x") == ["image-private-registry"]


@pytest.mark.parametrize("entry", ["http://registry.corp", "registry.corp/team", "registry", ""])
def test_what_is_no_registry_is_no_setting(entry: str) -> None:
    with pytest.raises(ValueError, match="registries: "):
        replace(POLICY, registries=(entry,))


def test_what_is_inside_and_of_others_is_both() -> None:
    """Else the setting for the one would show the other only in the next build."""
    foreign = frozenset({parse_repository("10.0.0.1:5000/a")})
    policy = replace(POLICY, foreign_repositories=foreign, base_images=("b",))
    assert rules("FROM 10.0.0.1:5000/a", policy) == ["image-foreign", "image-private-registry"]
    assert rules("FROM 10.0.0.1:5000/b", policy) == ["image-not-listed", "image-private-registry"]
    assert rules("FROM 10.0.0.1:5000/a", replace(policy, shared_repositories=foreign)) == []


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("debian", True),
        ("debian:13", True),
        ("alpine:3", True),
        ("alpine:3@sha256:" + "a" * 64, False),
        ("alpine", False),
        ("scratch", True),
        ("other", False),
    ],
)
def test_base_images_are_a_list_if_there_is_one(image: str, allowed: bool) -> None:
    policy = replace(POLICY, base_images=("debian", "alpine:3"))
    assert rules(f"FROM {image}", policy) == ([] if allowed else ["image-not-listed"])


def test_an_empty_list_of_base_images_allows_none() -> None:
    assert rules("FROM debian AS x\nFROM x\nFROM scratch", replace(POLICY, base_images=())) == ["image-not-listed"]


@pytest.mark.parametrize(
    ("flag", "rule", "setting"),
    [
        ("--network=host", "run-host-network", "host_network"),
        ("--security=insecure", "run-insecure", "insecure"),
        ("--device=vendor.com/gpu=all", "run-device", "devices"),
    ],
)
def test_what_run_asks_for(flag: str, rule: str, setting: str) -> None:
    allowing = DockerfilePolicy(Dialect.HEREDOCS, RESERVED_REGISTRY, **{setting: True})  # type: ignore[arg-type]
    for run in (f"RUN {flag} true", f"ONBUILD RUN {flag} true", f"run --mount=type=ssh {flag} true"):
        assert rules(f"FROM scratch\n{run}") == [rule]
        assert rules(f"FROM scratch\n{run}", allowing) == []
    assert rules("FROM scratch\nRUN --network=none --security=sandbox --mount=type=ssh true") == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7F.0.0.1",
        "0x7f.1",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.169.254.",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[64:ff9b::169.254.169.254]",
        "[2002:7f00:1::]",
        "[::127.0.0.1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "metadata.google.internal",
        "metadata",
        "host.docker.internal",
        "registry",
        "a.local",
        "a.svc.cluster.local",
        "1.0.0.127.in-addr.arpa",
    ],
)
def test_hosts_inside_in_any_notation(host: str) -> None:
    for url in (f"http://{host}/x", f"https://a:b@{host}:8080/x", f"http://{host}?x", f"http://{host}#x"):
        assert rules(f"FROM scratch\nADD {url} /x") == ["add-private-host"]
        assert rules(f'FROM scratch\nADD ["{url}", "/x"]', inputs=CLASSIC) == ["add-private-host"]
    assert rules(f"FROM scratch\nADD --checksum=x git://{host}/x.git#a:b /x") == ["add-private-host"]
    assert rules(f"FROM scratch\nONBUILD ADD HTTP://{host}/x.git /x") == ["add-private-host"]
    assert rules(f"ARG H={host}\nFROM scratch\nARG H\nADD ssh://git@$H/x /x") == ["add-private-host"]


@pytest.mark.parametrize(
    "source",
    [
        "http://",
        "http:///x",
        "http://a..b/",
        "http://1.2.3.4.5/",
        "http://1.2.3.256/",
        "http://x@[::1",
        "http://[::1%25lo]/",
        "http://[::1]a/",
        "http://[127.0.0.1]/",
        "http://127.0.0.1\\\\@example.com/",
        "http://%31%32%37.0.0.1/",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://example\u3002com/",
        "http://example.com:80a/",
        "http://-example.com/",
        "http://09.1.1.1/",
        f"http://{'b.' * 130}com/",
    ],
)
def test_urls_that_programs_read_differently_are_denied(source: str) -> None:
    assert rules(f"FROM scratch\nADD {source} /x") == ["add-unreadable"]


@pytest.mark.parametrize(
    "source", ["git@10.0.0.1:a/b", "x@localhost:b.git#c", "127.0.0.1/x.git", "registry/x.git?y#z", "git@10.0.0.1:"]
)
def test_repositories_without_a_scheme_are_urls_for_buildkit_alone(source: str) -> None:
    text = f"FROM scratch\nADD {source} /x"
    assert rules(text) == ["add-private-host"]
    assert rules(text, inputs=CLASSIC) == []
    assert rules(text, replace(POLICY, dialect=Dialect.NO_HEREDOCS)) == []


@pytest.mark.parametrize(
    "source", ["./x.git", "/x/y.git", "x.git", "dir/x.gitt", "a@b", "file:///etc/passwd", "ftp://10.0.0.1"]
)
def test_files_of_the_context_are_no_urls(source: str) -> None:
    assert rules(f"FROM scratch\nADD {source} /x") == []


def test_an_allowed_host_may_be_inside() -> None:
    urls = "http://mirror.corp/x http://10.1.2.3/x http://0x0a010204/x http://[fd00::5]/x http://registry/x"
    text = f"FROM scratch\nADD {urls} /d/\n"
    assert rules(text) == ["add-private-host"] * 5
    allowing = replace(POLICY, allowed_hosts=(".corp", "10.1.2.0/24", "fd00::/8", "registry"))
    assert rules(text, allowing) == []
    assert rules("FROM scratch\nADD http://10.1.3.1/ /", allowing) == ["add-private-host"]


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["93.184.216.34", "10.0.0.1"], ["add-private-host"]),
        (["93.184.216.34"], []),
        (["fe80::1%eth0"], ["add-private-host"]),
        ([], ["add-unjudged-host"]),
        (["x"], ["add-unreadable"]),
    ],
)
def test_names_that_only_dns_can_judge(answers: list[str], found: list[str]) -> None:
    text = "FROM scratch\nADD https://example.com/x /x\n"
    strict = replace(POLICY, unjudged_hosts=False)
    assert rules(text) == []
    assert rules(text, strict) == ["add-unjudged-host"]
    assert rules(text, replace(strict, allowed_hosts=("example.com",))) == []
    findings = check_dockerfile(text, strict, BUILDKIT, resolve=lambda _: answers)
    assert [finding.rule for finding in findings] == found
    if "10.0.0.1" in answers:
        assert findings[0].reason.endswith("inside its own network: the name has the address 10.0.0.1")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["93.184.216.34", "10.0.0.1"], ["image-private-registry"]),
        (["93.184.216.34"], []),
        ([], ["image-unjudged-registry"]),
        (["x"], ["image-private-registry"]),
    ],
)
def test_registries_that_only_dns_can_judge(answers: list[str], found: list[str]) -> None:
    strict = replace(POLICY, unjudged_hosts=False)
    asked = []

    def resolve(name: str) -> list[str]:
        asked.append(name)
        return answers

    for text in ("FROM registry.example:5000/x", "FROM debian\nCOPY --from=registry.example:5000/x a /"):
        assert rules(text) == []
        assert rules(text, strict) == ["image-unjudged-registry"]
        assert rules(text, replace(strict, registries=("registry.example:5000",))) == []
        assert [finding.rule for finding in check_dockerfile(text, strict, BUILDKIT, resolve)] == found
    # Nobody is asked for the usual one.
    assert set(asked) == {"registry.example"}


@pytest.mark.parametrize("host", ["93.184.216.34", "1572395042", "[::ffff:93.184.216.34]", "own.example"])
def test_the_hosts_own_addresses_are_inside_though_they_are_public(host: str) -> None:
    own = replace(POLICY, own_addresses=frozenset({ipaddress.ip_address("93.184.216.34")}))
    add, image = f"FROM scratch\nADD http://{host}:81/x /x\n", f"FROM {host}:5000/x\n"
    for policy, found in ((POLICY, []), (own, ["add-private-host"])):
        findings = check_dockerfile(add, policy, BUILDKIT, lambda _: ["93.184.216.34"])
        assert [finding.rule for finding in findings] == found
    if ":" not in host:
        findings = check_dockerfile(image, own, BUILDKIT, lambda _: ["93.184.216.34"])
        assert [finding.rule for finding in findings] == ["image-private-registry"]


@pytest.mark.parametrize(
    ("source", "older", "newest", "classic"),
    [
        ("https://example.com/$X", True, True, True),
        ("https://example.com/$X.git#$X", True, True, True),
        ("./$X", True, True, True),
        ("/a/$X", True, True, True),
        ("dir/$X", False, True, True),
        ("a$X", False, False, True),
        ("a@b/$X", False, False, True),
        ("$X", False, False, False),
        ("https://$X/a", False, False, False),
        ("https://example.com$X", False, False, False),
        ("http$X", False, False, False),
    ],
)
def test_what_only_the_base_image_tells_counts_where_it_matters(
    source: str, older: bool, newest: bool, classic: bool
) -> None:
    text = f"FROM debian\nADD {source} /x"
    cases = (
        (POLICY, BUILDKIT, older),
        (replace(POLICY, dialect=Dialect.SPACED_HEREDOCS), BUILDKIT, newest),
        (POLICY, CLASSIC, classic),
    )
    for policy, inputs, allowed in cases:
        assert rules(text, policy, inputs) == ([] if allowed else ["unresolved-source"])
        assert rules(text, replace(policy, unresolved=True), inputs) == []
        assert rules(f"FROM debian\nRUN echo {source}\nCOPY {source} /x\nWORKDIR $X", policy, inputs) == []


def test_an_image_that_only_the_build_tells_is_denied() -> None:
    inputs = BuildInputs("buildkit")
    assert rules("FROM base-$TARGETARCH", inputs=inputs) == ["unresolved-image"]
    assert rules("FROM base-$TARGETARCH", replace(POLICY, unresolved=True), inputs) == []
    assert rules("FROM base-$TARGETARCH") == []


def test_long_names_are_cut_in_what_is_said() -> None:
    [finding] = check("FROM scratch\nADD http://10.0.0.1/" + "x" * 5000 + " /")
    assert len(finding.reason) < 300


def test_an_allowed_host_is_compared_as_an_address_where_it_is_one() -> None:
    assert listed("0x7f.1", ["127.0.0.0/8"])
    assert not listed("::1", ["127.0.0.0/8", "::2", "localhost"])
