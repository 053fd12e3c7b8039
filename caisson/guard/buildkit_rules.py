"""What of BuildKit a build may call on its socket, and what the guard sends in its place. Pure.

Rules of this module:

- ``METHODS`` lists all that docker buildx needs to build one image (recorded from versions 0.13 and 0.29 on engines
  20.10 and 26.1); what is not in it is denied.
- A message is read by its schema, held to the policy, and written anew. What asks for more than the policy is denied,
  never changed; what matters for safety and was not asked for is written in: labels, the RUN steps' control group,
  their network, whose cache mounts they share, and ``cmdline``.
- Nothing of a Dockerfile is done before what the engine has made of it was judged (``llb``): the frontend is asked over
  the bridge, it answers with steps that nobody has begun, and only what it has answered so can be handed on.
- ``cmdline`` is how a Dockerfile's ``# syntax=`` is kept from being followed: with that attribute BuildKit's own
  frontend takes itself for the one that was asked for (``dockerfile/builder/build.go``, v0.8 to HEAD). An image that
  the policy lists can be the frontend, by the build argument ``BUILDKIT_SYNTAX``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from caisson.guard import buildkit_schema as schemas
from caisson.guard.build_ids import IDENTITY, BuildIds
from caisson.guard.grpc import PERMISSION_DENIED, UNIMPLEMENTED, Call
from caisson.guard.image_config import check_labels, triggers_in
from caisson.guard.llb import Steps, read_answer
from caisson.guard.policy import GuardPolicy
from caisson.guard.protobuf import Message, ProtobufError, Schema, encode, parse
from caisson.guard.verdict import Denied

_CONTROL = "/moby.buildkit.v1.Control/"
_BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"

BUILT_IN = "dockerfile.v0"
GATEWAY = "gateway.v0"
_CMDLINE = "caisson"


@dataclass(frozen=True)
class Judged:
    """A message that may go on, as the guard wrote it; ``session`` has to be open first, unless it is empty.

    ``triggers`` is what the image would have later builds do (ONBUILD), and ``steps`` what has to be done for it: both
    have to be allowed as well.
    """

    message: bytes
    session: str = ""
    triggers: tuple[str, ...] = ()
    steps: tuple[Steps, ...] = ()


Rewrite = Callable[[Message, GuardPolicy], Message]


@dataclass(frozen=True)
class Method:
    """One method that may be called: the largest message (bytes), its schema, and what is sent in its place."""

    limit: int
    schema: Schema
    rewrite: Rewrite
    of_build: bool = False
    """Whether the call's headers have to name a build, as BuildKit's bridge needs."""
    note: Callable[[Call, Message, BuildIds], None] = lambda *_: None
    """Keeps in mind what the message means for later calls, or judges it by what was noted; raises ``Denied``."""
    answer_limit: int = 0
    """The largest answer (bytes) of those that are read, by ``note_answer``; 0: they are not."""


def find_method(call: Call) -> Method:
    """The method of a call; raises ``Denied`` for one that is no part of a build."""
    if call.path in _DECLINED:
        raise Denied("buildkit-declined", _DECLINED[call.path])
    if call.path not in METHODS:
        name = call.path.removeprefix(_CONTROL).removeprefix(_BRIDGE)
        raise Denied("buildkit-method", f"BuildKit's {name} is no part of building an image from a Dockerfile.")
    method = METHODS[call.path]
    if method.of_build != bool(call.build_id):
        raise Denied("buildkit-method", f"{call.path} names a build, or names none, where it should not.")
    return method


def status_of(denied: Denied) -> int:
    """The gRPC status of a refusal. What clients only try out is unimplemented: they do without."""
    return UNIMPLEMENTED if denied.rule == "buildkit-declined" else PERMISSION_DENIED


def judge(call: Call, data: bytes, policy: GuardPolicy, ids: BuildIds) -> Judged:
    """The message of a call, held to the policy; raises ``Denied``."""
    method = find_method(call)
    try:
        message = parse(method.schema, data)
    except ProtobufError as error:
        raise Denied("buildkit-message", f"{error}.") from error
    written = method.rewrite(message, policy)
    given = {**message.texts("FrontendAttrs"), **message.texts("FrontendOpt")}
    # A frontend without any attribute builds too, and then with the Dockerfile's own defaults.
    if given or message.text("Frontend"):
        ids.fix_build_args({match[1]: value for key, value in given.items() if (match := _ARGUMENT.fullmatch(key))})
    for build in (call.build_id, message.text("Ref")):
        if build:
            ids.name_build(build)
    method.note(call, message, ids)
    session = message.text("Session")
    if session and not IDENTITY.fullmatch(session):
        raise Denied("session-id", "A session's ID has to have 16 to 64 lower-case letters and digits.")
    if session:
        written = written.set(Session=ids.on_engine(session))
    return Judged(encode(written), session, _triggers(message), _steps(call, message, ids))


def note_answer(call: Call, answer: bytes, ids: BuildIds) -> None:
    """Keep in mind what the daemon has made of a Dockerfile; raises ``Denied`` for what is not understood."""
    if (found := read_answer(answer)) is not None:
        ids.name_result(call.build_id, *found)


def _unchanged(message: Message, _: GuardPolicy) -> Message:
    return message


def _status(message: Message, _: GuardPolicy) -> Message:
    if not message.text("Ref"):
        raise Denied("build-id", "Status has to name a build.")
    return message


# Fields of both Solve messages that a build from a Dockerfile leaves empty, and what each would be good for.
_NEVER = {
    "Definition": ("build-llb", "Steps come from a Dockerfile, never as a definition of one's own (LLB)."),
    "FrontendInputs": ("build-inputs", "Definitions of one's own (LLB) are no input of a Dockerfile here."),
    "Entitlements": ("build-entitlements", "There are no entitlements here, such as network.host."),
    "SourcePolicy": ("build-source-policy", "Sources are not replaced here."),
    "SourcePolicies": ("build-source-policy", "Sources are not replaced here."),
    "SourcePolicySession": ("build-source-policy", "Sources are not replaced here."),
    "EnableSessionExporter": ("build-exporter", "The build's image is its only output."),
    "ProxyNetwork": ("build-network", "The guard decides on the network of RUN steps."),
    "CacheImports": ("build-cache", "Caches come from no registry here."),
}


def _deny_never(message: Message) -> None:
    for name, (rule, reason) in _NEVER.items():
        if message.has(name):
            raise Denied(rule, reason)


def _control_solve(message: Message, policy: GuardPolicy) -> Message:
    _deny_never(message)
    if not message.text("Ref") or not message.text("Session"):
        raise Denied("build-id", "Solve has to name a build and a session.")
    cache = message.message("Cache")
    if cache is not None and cache.values:
        raise Denied("build-cache", "Caches go to no registry and come from none here.")
    _check_exporter(message.text("Exporter"), message.texts("ExporterAttrs"), policy)
    exporters = message.messages("Exporters")
    if len(exporters) > 1:
        raise Denied("build-exporter", "The build's image is its only output.")
    for exporter in exporters:
        _check_exporter(exporter.text("Type"), exporter.texts("Attrs"), policy)
    frontend, given = message.text("Frontend"), message.texts("FrontendAttrs")
    # Without a frontend the client asks for one over the bridge, and these are the same attributes once more.
    if frontend:
        _check_frontend(frontend, given, policy)
    elif not given:
        return message
    written = build_attributes(given, policy)
    if frontend:
        raise Denied("build-frontend", "The frontend has to be asked over the bridge, so that what it answers is seen.")
    return message.set(FrontendAttrs=written)


def _note_export(_: Call, message: Message, ids: BuildIds) -> None:
    ids.name_export(message.text("Ref"), exports=bool(message.text("Exporter") or message.messages("Exporters")))


def _bridge_solve(message: Message, policy: GuardPolicy) -> Message:
    _deny_never(message)
    given = message.texts("FrontendOpt")
    _check_frontend(message.text("Frontend"), given, policy)
    if message.flag("Evaluate"):
        raise Denied("build-evaluate", "Nothing is done before it is known what would be done.")
    return message.set(FrontendOpt=build_attributes(given, policy))


def _check_exporter(kind: str, attributes: Mapping[str, str], policy: GuardPolicy) -> None:
    if not kind and not attributes:
        return
    # dockerd's own exporter, into its image store; buildx names it so for every build with a tag.
    if kind != "moby":
        raise Denied("build-exporter", f"The exporter {kind[:40]!r} is not the engine's image store.")
    if attributes != {"name": str(policy.image)}:
        raise Denied(
            "build-name", f"The image has to be named {policy.image}, and nothing else can be said of its export."
        )


def _check_frontend(frontend: str, given: Mapping[str, str], policy: GuardPolicy) -> None:
    if frontend == GATEWAY and given.get("source") in policy.frontends:
        return
    if frontend != BUILT_IN or "source" in given:
        raise Denied("build-frontend", "Only the engine's own Dockerfile frontend runs here, never an image's.")


_PATH = re.compile(r"(?!/)[^\x00-\x1f\x7f\\]{1,4096}")
_STAGE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
# What a client may say of a build, besides arguments and labels, and how that is spelt.
_ATTRIBUTES = {
    # The Dockerfile's path, below the directory that the client itself serves over its session.
    "filename": _PATH,
    # Which directory that is: buildx says so, by the name that it has anyway, for a Dockerfile of its standard input.
    "dockerfilekey": re.compile("dockerfile"),
    "target": re.compile(_STAGE),
    # For all stages where it is empty.
    "no-cache": re.compile(rf"(?:{_STAGE}(?:,{_STAGE})*)?"),
    # "local" takes the engine's image where it has one; "pull" is --pull.
    "image-resolve-mode": re.compile("local|pull|default"),
    # Less than the policy gives.
    "force-network-mode": re.compile("none"),
}
# Where the context comes from, for a provenance that is not made here: understood, and left out.
_LEFT_OUT = frozenset({"vcs:source", "vcs:revision", "vcs:localdir:context", "vcs:localdir:dockerfile"})
_ARGUMENT = re.compile(r"build-arg:([^\x00-\x20\x7f=]{1,256})")
_CACHE_NAMESPACE = "build-arg:BUILDKIT_CACHE_MOUNT_NS"
_SYNTAX = "build-arg:BUILDKIT_SYNTAX"


def build_attributes(given: Mapping[str, str], policy: GuardPolicy) -> dict[str, str]:
    """The frontend's attributes that the guard writes for those that were given; raises ``Denied``."""
    written = {key: value for key, value in given.items() if key not in _LEFT_OUT}
    own = _own_attributes(policy)
    for key, value in written.items():
        if key in own:
            if own[key] != value:
                raise Denied(*_why(key, policy))
        elif not _may_be(key, value):
            if key in ("source", "cmdline", _SYNTAX):
                _check_syntax(given, policy)
            else:
                raise Denied(*_why(key, policy))
    # The other two come with the source, or are denied.
    cmdline = {} if "source" in given else {"cmdline": _CMDLINE}
    return {**written, **own, **cmdline}


def _own_attributes(policy: GuardPolicy) -> dict[str, str]:
    if policy.network_mode not in ("default", "none"):
        raise Denied("build-network", f"BuildKit can't give RUN steps the network {policy.network_mode}.")
    own = {
        "cgroup-parent": policy.cgroup_parent,
        "force-network-mode": "none" if policy.network_mode == "none" else "",
        _CACHE_NAMESPACE: policy.cache_mount_namespace,
    }
    return {key: value for key, value in own.items() if value} | {f"label:{key}": v for key, v in policy.labels}


def _may_be(key: str, value: str) -> bool:
    if key in _ATTRIBUTES:
        return _ATTRIBUTES[key].fullmatch(value) is not None and ".." not in value.split("/")
    argument = _ARGUMENT.fullmatch(key)
    # Those of BuildKit itself change what a build is; the Dockerfile's own arguments don't.
    return argument is not None and not argument[1].upper().startswith("BUILDKIT_")


def _why(key: str, policy: GuardPolicy) -> tuple[str, str]:
    if key.startswith("label:"):
        return "build-labels", f"The label {key[6:86]!r} is not one of the build's; write it in the Dockerfile."
    if key == "context":
        return "build-attribute", "A build from a URL is fetched by the engine, from its own network; send the context."
    if key == "cgroup-parent":
        own = policy.cgroup_parent or "the engine's own"
        return "build-cgroup-parent", f"RUN steps belong into the control group {own}."
    if key == "force-network-mode":
        return "build-network", "The guard decides on the network of RUN steps."
    if key == _CACHE_NAMESPACE:
        return "build-cache-mounts", "The guard decides on whose cache mounts a build shares."
    return "build-attribute", f"The attribute {key[:80]!r} of a build, or its value, is not one that it may have here."


def _check_syntax(given: Mapping[str, str], policy: GuardPolicy) -> None:
    # buildx makes all three of one build argument: IMAGE, or IMAGE and its arguments.
    source, cmdline = given.get("source", ""), given.get("cmdline", "")
    if source not in policy.frontends or cmdline.split(" ")[0] != source or given.get(_SYNTAX, cmdline) != cmdline:
        raise Denied("build-frontend", "Only the engine's own Dockerfile frontend runs here, never an image's.")


# What the built-in frontend says of an image. The configurations are the image's and its base's, in JSON.
_CONFIG = "containerimage.config"
_METADATA = frozenset({_CONFIG, "containerimage.base.config", "refs.platforms"})
_LARGEST_CONFIG = 1 << 20


def _return(message: Message, policy: GuardPolicy) -> Message:
    """The result, which the client got from the bridge and now hands to the exporter: it could be another one."""
    if error := message.message("error"):
        # Its details are the client's own stack; the daemon would only hand them back.
        return message.set(error=Message(error.schema, {k: v for k, v in error.values.items() if k != "details"}))
    result = message.message("result")
    if result is None:
        # The daemon would look into what is not there.
        raise Denied("build-result", "Return has neither a result nor an error.")
    reference, metadata = result.message("ref"), result.blobs("metadata")
    if unknown := metadata.keys() - _METADATA:
        raise Denied("build-result", f"A result can't have {min(unknown)[:80]!r} here.")
    if any(len(value) > _LARGEST_CONFIG for value in metadata.values()):
        raise Denied("build-result", f"An image's configuration is larger than {_LARGEST_CONFIG} bytes.")
    name = reference.text("id") if reference else ""
    if name and not re.fullmatch("[0-9a-z]{1,64}", name):
        raise Denied("build-result", "A result's reference is not one of BuildKit's.")
    if _CONFIG in metadata:
        check_labels(metadata[_CONFIG], policy)
    elif name:
        raise Denied("build-result", "A result has an image, and no configuration for it.")
    written = result.set(ref=Message(schemas.RESULT_REF, {"id": name} if name else {}))
    return message.set(result=written)


def _triggers(message: Message) -> tuple[str, ...]:
    """The Dockerfile that was judged may have none of them: the client has the configuration in its hands."""
    result = message.message("result")
    return triggers_in(result.blobs("metadata").get(_CONFIG, b"{}")) if result is not None else ()


def _steps(call: Call, message: Message, ids: BuildIds) -> tuple[Steps, ...]:
    """What has to be done for a result that is handed on; a result without a reference is an empty image."""
    result = message.message("result")
    reference = result.message("ref") if result is not None else None
    name = reference.text("id") if reference is not None else ""
    return (ids.steps_of(call.build_id, name),) if name else ()


def _require_config(call: Call, message: Message, ids: BuildIds) -> None:
    """Of a result without a configuration the exporter makes an empty image, which has no label."""
    result = message.message("result")
    if result is not None and _CONFIG not in result.blobs("metadata") and ids.may_export(call.build_id):
        raise Denied("build-result", "A result that becomes an image has no configuration.")


METHODS = {
    # buildx asks what the engine has, before each build.
    f"{_CONTROL}ListWorkers": Method(1024, schemas.NOTHING, _unchanged),
    # The progress of a build.
    f"{_CONTROL}Status": Method(1024, schemas.STATUS, _status),
    # The build. One without an exporter comes first: buildx asks so for the bridge's capabilities.
    f"{_CONTROL}Solve": Method(1 << 20, schemas.CONTROL_SOLVE, _control_solve, note=_note_export),
    # What the bridge can do.
    f"{_BRIDGE}Ping": Method(1024, schemas.NOTHING, _unchanged, of_build=True),
    # The Dockerfile's frontend is run, and answers with the image's reference and configuration.
    f"{_BRIDGE}Solve": Method(1 << 20, schemas.BRIDGE_SOLVE, _bridge_solve, of_build=True, answer_limit=4 << 20),
    # Which the client hands on to the exporter.
    f"{_BRIDGE}Return": Method(4 << 20, schemas.RETURN, _return, of_build=True, note=_require_config),
}

# What buildx tries and does without.
_DECLINED = {
    # Spans of the client's; they would go to wherever the engine sends its own.
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "Traces are not collected here.",
    # buildx 0.29 asks whether there is a history; it would show all builds of the engine.
    f"{_CONTROL}ListenBuildHistory": "The history of builds is not shown here.",
}
