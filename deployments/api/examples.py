"""Examples of what the API answers, for its OpenAPI document, by the names that it has for them there.

They are put into the document when FastAPI has made it, for that leaves out what is null.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

Example = dict[str, JsonValue]

_RUN = "0b9f2a3e-6a0e-4c44-9a0c-2d7f6f1c9a51"
_BUILD: Example = {
    "id": _RUN,
    "state": "running",
    "repository_url": "https://github.com/team/app.git",
    "ref": "main",
    "image": "registry.example.com:5000/team/app",
    "created": "2026-05-01T12:00:00Z",
    "started": "2026-05-01T12:00:01Z",
    "ended": None,
    "seconds": 3.5,
    "queue": None,
    "failure": None,
}
_QUEUED: Example = {
    **_BUILD,
    "state": "queued",
    "started": None,
    "seconds": 0.0,
    "queue": {"ahead": 2, "reason": "waits: 2 builds ahead"},
    "step": "",
    "report": None,
    "joined": False,
}
_IMAGE: Example = {
    "id": f"sha256:{'5f' * 32}",
    "tags": ["team/app:main", "team/app:sha-6113728"],
    "registry_digests": [],
    "size": 131072000,
    "marginal_bytes": 2097152,
    "first_seen": "2026-05-01T12:00:00Z",
    "last_used": "2026-05-03T08:30:00Z",
    "last_use": "a container had it",
    "decision": "keep",
    "rule": "keep_last",
    "reason": "it is among the newest 3 of team/app",
    "phase": None,
    "going_tags": [],
}
_DISK: Example = {
    "host": "b1",
    "at": "2026-05-03T08:31:00Z",
    "level": "normal",
    "file_systems": [
        {
            "path": "/var/lib/docker",
            "holds": ["images", "volumes"],
            "level": "normal",
            "since": None,
            "summary": "60% of 200 GiB in use",
            "bytes": {
                "total": 214748364800,
                "used": 128849018880,
                "free": 85899345920,
                "used_share": 0.6,
                "zone": "below",
                "low_free": 53687091200,
                "high_free": 32212254720,
                "critical_free": 10737418240,
                "missing": 0,
                "forecast": "growing 3.1 GiB a day, full in about 26 days (19–40)",
                "growth_per_day": 3328599654.4,
                "full_in_seconds": 2246400.0,
                "full_in_earliest_seconds": 1641600.0,
                "full_in_latest_seconds": 3456000.0,
            },
            "inodes": None,
        }
    ],
    "attribution": None,
}
_TAKEN: Example = {
    "builds": [
        {
            "image": "team/app",
            "ref": "refs/heads/main",
            "commit": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
            "flow_run_id": _RUN,
        }
    ],
    "reasons": [],
}
_PASSED_OVER: Example = {"builds": [], "reasons": ["rule 1: 'next' is not among its branches"]}

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "BuildSummary": (_BUILD,),
    "BuildDetail": ({**_BUILD, "step": "clone", "report": None},),
    "BuildAccepted": (_QUEUED,),
    "BuildPage": ({"builds": [_BUILD], "next": ""},),
    "ImagePage": ({"images": [_IMAGE], "next": ""},),
    "DiskReport": (_DISK,),
    "Answer": (_TAKEN, _PASSED_OVER),
    "Health": ({"status": "ok"},),
}
