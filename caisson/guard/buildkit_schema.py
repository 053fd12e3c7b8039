"""The messages of BuildKit that a build may send, field by field as in its ``.proto`` files.

They are those of moby/buildkit v0.8 to v0.29, in ``api/services/control`` and ``frontend/gateway/pb``.

A field that is in none of the schemas is denied as unknown. Those that are here only to be denied with a better reason
are read as bytes, without a look at what is in them.
"""

from __future__ import annotations

from caisson.guard.protobuf import Field, Schema

NOTHING = Schema("The request")

STATUS = Schema("StatusRequest", {1: Field("Ref", "text")})

EXPORTER = Schema("Exporter", {1: Field("Type", "text"), 2: Field("Attrs", "text", key=True)})

CACHE = Schema("CacheOptions", {4: Field("Exports", "bytes", many=True), 5: Field("Imports", "bytes", many=True)})

CONTROL_SOLVE = Schema(
    "SolveRequest",
    {
        1: Field("Ref", "text"),
        2: Field("Definition", "bytes"),
        3: Field("Exporter", "text"),
        4: Field("ExporterAttrs", "text", key=True),
        5: Field("Session", "text"),
        6: Field("Frontend", "text"),
        7: Field("FrontendAttrs", "text", key=True),
        8: Field("Cache", "message", CACHE),
        9: Field("Entitlements", "bytes", many=True),
        10: Field("FrontendInputs", "bytes", many=True),
        11: Field("Internal", "flag"),
        12: Field("SourcePolicy", "bytes"),
        13: Field("Exporters", "message", EXPORTER, many=True),
        14: Field("EnableSessionExporter", "flag"),
        15: Field("SourcePolicySession", "bytes"),
        17: Field("ProxyNetwork", "flag"),
    },
)

BRIDGE_SOLVE = Schema(
    "SolveRequest",
    {
        1: Field("Definition", "bytes"),
        2: Field("Frontend", "text"),
        3: Field("FrontendOpt", "text", key=True),
        5: Field("allowResultReturn", "flag"),
        6: Field("allowResultArrayRef", "flag"),
        12: Field("CacheImports", "bytes", many=True),
        13: Field("FrontendInputs", "bytes", many=True),
        14: Field("Evaluate", "flag"),
        15: Field("SourcePolicies", "bytes", many=True),
    },
)

# The definition is the daemon's own answer, sent back. No daemon reads it (llbBridgeForwarder.Return looks up the id).
RESULT_REF = Schema("Ref", {1: Field("id", "text"), 2: Field("def", "bytes")})

RESULT = Schema("Result", {3: Field("ref", "message", RESULT_REF), 10: Field("metadata", "bytes", key=True)})

STATUS_ERROR = Schema(
    "Status", {1: Field("code", "number"), 2: Field("message", "text"), 3: Field("details", "bytes", many=True)}
)

RETURN = Schema(
    "ReturnRequest",
    {1: Field("result", "message", RESULT), 2: Field("error", "message", STATUS_ERROR)},
    one_of=frozenset({"result", "error"}),
)

# The daemon's own answers. What nobody looks at there is read as bytes: some encoders leave empty values out of a map.
BRIDGE_ANSWER = Schema(
    "SolveResponse",
    {
        1: Field("ref", "text"),
        3: Field(
            "result",
            "message",
            Schema(
                "Result",
                {
                    1: Field("refDeprecated", "text"),
                    2: Field("refsDeprecated", "bytes"),
                    3: Field("ref", "message", RESULT_REF),
                    4: Field("refs", "bytes"),
                    10: Field("metadata", "bytes", many=True),
                    11: Field("attestations", "bytes", many=True),
                },
            ),
        ),
    },
)

DEFINITION = Schema(
    "Definition",
    {1: Field("def", "bytes", many=True), 2: Field("metadata", "bytes", many=True), 3: Field("Source", "bytes")},
)

_EXEC = Schema(
    "ExecOp",
    {
        1: Field("meta", "bytes"),
        2: Field("mounts", "bytes", many=True),
        3: Field("network", "number"),
        4: Field("security", "number"),
        5: Field("secretenv", "bytes", many=True),
        6: Field("cdiDevices", "bytes", many=True),
    },
)

_SOURCE = Schema("SourceOp", {1: Field("identifier", "text"), 2: Field("attrs", "text", key=True)})

OPERATION = Schema(
    "Op",
    {
        1: Field("inputs", "bytes", many=True),
        2: Field("exec", "message", _EXEC),
        3: Field("source", "message", _SOURCE),
        4: Field("file", "bytes"),
        5: Field("build", "bytes"),
        6: Field("merge", "bytes"),
        7: Field("diff", "bytes"),
        10: Field("platform", "bytes"),
        11: Field("constraints", "bytes"),
    },
    one_of=frozenset({"exec", "source", "file", "build", "merge", "diff"}),
)
