"""Calls to BuildKit over ``/grpc``: methods that no build needs, and fields of a build that ask for more.

Most builds here name a context on a server of ours: that the engine asks that server shows that it has begun the build,
with all that was asked for. The server has nothing, so that no build comes to an end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from caisson.guard.http2 import PREFACE, window_update, write_settings
from tests.buildkit_client import BRIDGE, CONTROL, Client, pb, read_answers
from tests.engine.attacks.case import Effect, Refuses, fetched
from tests.engine.attacks.lab import Answer, Case

Field = tuple[int, str | bytes | int | dict[str, str]]
# Windows wide enough for an answer that tells of every layer.
GREETING = PREFACE + write_settings({4: 8 << 20}) + window_update(0, 8 << 20)


@dataclass(frozen=True)
class GrpcAttack:
    """``frames`` are all that the client sends after the engine has switched to h2c. The rest is as in ``Attack``."""

    name: str
    frames: Callable[[Case], bytes]
    rule: str
    works: Effect | Refuses
    works_on: Mapping[str, Effect | Refuses] = field(default_factory=dict)
    waits: float = 8.0
    passed: int = 0
    """How many calls are allowed before it, at most: they may come in one piece with it."""

    def on(self, engine: str) -> Effect | Refuses:
        return next((works for name, works in self.works_on.items() if engine.startswith(name)), self.works)


def answers(data: bytes) -> dict[int, dict[str, str]]:
    """The header lists that came back, by stream; those of a stream are merged."""
    return read_answers(data)


def status(*wanted: str) -> Effect:
    """The first call was answered with one of these statuses."""
    return lambda case, answer: answers(answer.data).get(1, {}).get("grpc-status") in wanted


def _ref(case: Case) -> str:
    return hashlib.sha256(case.fresh.encode()).hexdigest()[:25]


def method(
    name: str, path: str, works: Effect | Refuses, message: bytes = b"", rule: str = "buildkit-method", **more: object
) -> GrpcAttack:
    """One call of a method."""
    return GrpcAttack(name, lambda case: GREETING + Client().call(path, message), rule, works, **more)  # type: ignore[arg-type]


def bridge(name: str, works: Effect | Refuses | None = None, **more: object) -> GrpcAttack:
    """A call of the bridge, for a build that is not there; the engine looks for it before it says so."""
    reached = works or _reached
    return method(f"the bridge's {name}", f"{BRIDGE}{name}", reached, **more)  # type: ignore[arg-type]


def _reached(case: Case, answer: Answer) -> bool:
    """The engine knows the method: it misses the build, and not the method."""
    found = answers(answer.data).get(1, {})
    return found.get("grpc-status") in ("2", "5") and "no such job" in found.get("grpc-message", "")


CONTEXT = "http://<server>/context"


def message(case: Case, *fields: Field, **changed: object) -> bytes:
    """``Control/Solve`` as buildx sends it, with a context from our server, or without some of it."""
    exporter = changed.get("exporter", "moby")
    attributes = {"name": str(case.lab.policy.image), **changed.get("export", {})}  # type: ignore[dict-item]
    frontend = changed.get("frontend", "dockerfile.v0")
    given = {**changed.get("attributes", {}), "context": CONTEXT}  # type: ignore[dict-item]
    own: list[Field] = [(1, _ref(case)), (3, str(exporter)), (4, attributes), (5, f"{_ref(case)}s")]
    if frontend:
        own += [(6, str(frontend)), (7, given)]
    return fill(case, [*own, *fields])


def fill(case: Case, fields: list[Field]) -> bytes:
    """The message, with names in the place of marks."""
    filled: list[Field] = []
    for number, value in fields:
        if isinstance(value, str):
            value = case.fill_text(value)
        elif isinstance(value, dict):
            value = {case.fill_text(key): case.fill_text(item) for key, item in value.items()}
        filled.append((number, value))
    return pb(*filled)


def solve(
    name: str,
    rule: str,
    *fields: Field,
    works: Effect | Refuses = fetched,
    works_on: Mapping[str, Effect | Refuses] | None = None,
    **changed: object,
) -> GrpcAttack:
    """A build with such fields."""
    return GrpcAttack(
        name,
        lambda case: GREETING + Client().call(f"{CONTROL}Solve", message(case, *fields, **changed)),
        rule,
        works,
        works_on or {},
    )


def attribute(name: str, key: str, value: str, rule: str = "build-attribute", **more: object) -> GrpcAttack:
    """A build whose frontend gets such an attribute, and before the context, so that it is the first to be judged."""
    return solve(name, rule, attributes={key: value}, **more)  # type: ignore[arg-type]


def definition(case: Case, source: str) -> bytes:
    """Steps of one's own: one source, fetched."""
    fetch = fill(case, [(3, fill(case, [(1, source)]))])
    end = pb((1, pb((1, f"sha256:{hashlib.sha256(fetch).hexdigest()}"))))
    return pb((1, fetch), (1, end))


def llb(name: str, source: str) -> GrpcAttack:
    """A build from a definition, without any Dockerfile."""
    return GrpcAttack(
        name,
        lambda case: (
            GREETING + Client().call(f"{CONTROL}Solve", message(case, (2, definition(case, source)), frontend=""))
        ),
        "build-llb",
        fetched,
    )


_UNKNOWN = Refuses("grpc-status: 12", "this engine's BuildKit has no such method")
_NEW = {"20.10": _UNKNOWN}
METHODS = [
    method("the use of the disk", f"{CONTROL}DiskUsage", status("0")),
    method("a prune", f"{CONTROL}Prune", status("0"), pb((1, "id==none"))),
    method("a prune of all", f"{CONTROL}Prune", status("0"), pb((1, "id==none"), (2, 1))),
    method(
        "the history of builds",
        f"{CONTROL}ListenBuildHistory",
        status("0"),
        pb((3, 1)),
        "buildkit-declined",
        works_on=_NEW,
    ),
    method(
        "a change of history",
        f"{CONTROL}UpdateBuildHistory",
        status("0", "2", "5"),
        pb((1, "none"), (3, 1)),
        works_on=_NEW,
    ),
    method("facts of the daemon", f"{CONTROL}Info", status("0"), works_on=_NEW),
    method("a session within", f"{CONTROL}Session", status("0", "2", "3")),
    method("workers by a filter", f"{CONTROL}ListWorkers", status("0"), pb((1, "id==none")), "buildkit-message"),
    method(
        "the status of another's build",
        f"{CONTROL}Status",
        status("2", "5"),
        pb((1, "b"), (2, "x")),
        "buildkit-message",
    ),
    method(
        "traces",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        status("0"),
        rule="buildkit-declined",
        works_on=_NEW,
    ),
    method("the health of all", "/grpc.health.v1.Health/Check", status("0", "12")),
    method("files of the daemon", "/moby.filesync.v1.FileSync/DiffCopy", _UNKNOWN),
    method("what services there are", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", _UNKNOWN),
    method("the store of contents", "/containerd.services.content.v1.Content/List", status("0"), works_on=_NEW),
    method("a method in small letters", "/moby.buildkit.v1.control/solve", _UNKNOWN),
    method(
        "a method with a slash more",
        f"/{CONTROL}DiskUsage",
        Refuses("grpc-status: 12", "paths are compared as they are"),
        rule="grpc-header",
    ),
    method("a method of no name", f"{CONTROL}Other", _UNKNOWN),
    *(
        bridge(name)
        for name in (
            "NewContainer",
            "ReadFile",
            "ReadDir",
            "ResolveImageConfig",
            "Inputs",
        )
    ),
    bridge("ExecProcess"),
    bridge("Solve", message=pb((2, "dockerfile.v0"), (14, 1)), rule="build-evaluate"),
    bridge("Warn", works_on=_NEW),
]

FIELDS = [
    solve("a context from a host inside", "build-attribute"),
    llb("steps of one's own", "http://<server>/x"),
    llb("an image from a host inside", "docker-image://<server>/x:x"),
    solve("inputs of one's own", "build-inputs", (10, pb((1, "x"), (2, b"")))),
    solve("the host's network", "build-entitlements", (9, "network.host")),
    solve(
        "no confinement",
        "build-entitlements",
        (9, "security.insecure"),
        works=Refuses("security.insecure", "the engine grants no such thing"),
    ),
    solve("a policy for sources", "build-source-policy", (12, b"")),
    solve("an exporter of a session", "build-exporter", (14, 1)),
    solve("a policy of a session", "build-source-policy", (15, "x")),
    solve("a network of a proxy", "build-network", (17, 1)),
    solve("a cache from a host inside", "build-cache", (8, pb((5, pb((1, "registry"), (2, {"ref": "x"})))))),
    solve("a cache to a host inside", "build-cache", (8, pb((4, pb((1, "inline")))))),
    solve("a cache by an old field", "buildkit-message", (8, pb((2, "x")))),
    solve("a field that is not known", "buildkit-message", (99, "x")),
    solve("another's name", "build-name", export={"name": "<fresh-image>"}),
    solve("another's name besides", "build-name", export={"name": "<own>,<fresh-image>"}),
    solve("a push", "build-name", export={"push": "true"}),
    solve("a push to a host inside", "build-name", export={"push": "true", "registry.insecure": "true"}),
    solve("an unpacked image", "build-name", export={"unpack": "true"}),
    solve("an archive", "build-exporter", exporter="tar"),
    solve("the host's files", "build-exporter", exporter="local"),
    solve(
        "an archive of an image",
        "build-exporter",
        exporter="oci",
        works=Refuses('exporter "oci" could not be found', "the engine has its own exporters only"),
    ),
    solve("two outputs", "build-exporter", (13, pb((1, "moby"), (2, {"name": "x"}))), (13, pb((1, "local")))),
    solve("a second output's name", "build-name", (13, pb((1, "moby"), (2, {"name": "x"})))),
    solve(
        "a frontend that is an image", "build-frontend", frontend="gateway.v0", attributes={"source": "<server>/x:x"}
    ),
    solve(
        "a frontend that is none",
        "build-frontend",
        frontend="other.v0",
        works=Refuses("invalid frontend", "there is no such frontend"),
    ),
    solve("a build without a name", "buildkit-message", (1, "")),
    solve("a build named twice", "buildkit-message", (1, "b" * 25)),
    solve("another session", "buildkit-message", (5, "s" * 25)),
    solve("a frontend twice", "buildkit-message", (6, "dockerfile.v0")),
    solve("the image's name twice", "buildkit-message", (4, {"name": "<fresh-image>"})),
    solve("an attribute twice", "buildkit-message", (7, {"context": CONTEXT})),
    solve("an attribute without a value", "buildkit-message", (7, pb((1, "no-cache")))),
    solve("an attribute with something more", "buildkit-message", (7, pb((1, "target"), (2, ""), (3, "x")))),
    solve("a flag that is two", "buildkit-message", (11, 2)),
    solve(
        "a frontend in capitals",
        "build-frontend",
        frontend="Dockerfile.v0",
        works=Refuses("invalid frontend", "there is no such frontend"),
    ),
    solve("an image for the frontend that is none", "build-frontend", attributes={"source": "<server>/x:x"}),
    solve(
        "a text that is not UTF-8",
        "buildkit-message",
        (6, b"\xff"),
        works=Refuses("invalid frontend", "there is no such frontend"),
        works_on={"26.1": Refuses("silent", "the engine's answer would not be UTF-8 either")},
    ),
]

ATTRIBUTES = [
    attribute("RUN in the host's network", "force-network-mode", "host", "build-network"),
    attribute("another control group", "cgroup-parent", "/", "build-cgroup-parent"),
    attribute("another's cache mounts", "build-arg:BUILDKIT_CACHE_MOUNT_NS", "other", "build-cache-mounts"),
    attribute("another's labels", "label:caisson.pool", "x", "build-labels"),
    attribute("the own label changed", "label:caisson.attacked", "x", "build-labels"),
    attribute("another frontend", "build-arg:BUILDKIT_SYNTAX", "<server>/x:x", "build-frontend"),
    attribute("arguments of another frontend", "cmdline", "<server>/x:x", "build-frontend"),
    attribute("extra hosts", "add-hosts", "registry.invalid=127.0.0.1"),
    attribute("extra limits", "ulimit", "nofile=1:1"),
    attribute("a large /dev/shm", "shm-size", "1099511627776"),
    attribute("a host's name", "hostname", "x"),
    attribute("another platform", "platform", "linux/s390x"),
    attribute("many platforms", "multi-platform", "true"),
    attribute("another context by name", "context:base", "docker-image://<server>/x:x"),
    attribute("another key of the Dockerfile", "dockerfilekey", "x"),
    attribute("a Dockerfile above", "filename", "../Dockerfile"),
    attribute("a Dockerfile of the host", "filename", "/etc/passwd"),
    attribute("a cache to read", "cache-from", "<server>/x:x"),
    attribute("caches to read", "cache-imports", '[{"Type":"registry","Attrs":{"ref":"<server>/x:x"}}]'),
    attribute("an attestation", "attest:provenance", "mode=max"),
    attribute("a scanner that is an image", "attest:sbom", "generator=<server>/x:x"),
    attribute("a request within", "requestid", "frontend.outline"),
    attribute(
        "a way to resolve that is none",
        "image-resolve-mode",
        "other",
        works=Refuses("invalid image-resolve-mode", "the frontend looks too"),
    ),
    attribute("an argument of BuildKit's", "build-arg:BUILDKIT_MULTI_PLATFORM", "1"),
    attribute("an argument of BuildKit's in small letters", "build-arg:buildkit_multi_platform", "1"),
    attribute("an argument with a line in its name", "build-arg:A\nB", "1"),
    attribute("an input of one's own", "input:base", "x"),
    attribute("a context's directory", "contextsubdir", "../x"),
    attribute("what a repository is kept with", "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1"),
    attribute("a host's name by an argument", "build-arg:BUILDKIT_SANDBOX_HOSTNAME", "x"),
    attribute("a cache that is handed on", "build-arg:BUILDKIT_INLINE_CACHE", "1"),
    attribute("a frontend under development", "gateway-devel", "true"),
    attribute("an attribute in capitals", "Target", "x"),
    attribute("an attribute that is not known", "other", "x"),
]

ATTACKS = [*METHODS, *FIELDS, *ATTRIBUTES]
