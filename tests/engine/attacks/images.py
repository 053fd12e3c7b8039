"""Images of others, and the registries and servers that the engine would ask: from its own network (SSRF)."""

from __future__ import annotations

import base64
import json

from tests.engine.attacks.case import Attack, Http, Refuses, done, endpoint, exists, fetched, gone, query, says
from tests.engine.attacks.lab import Answer, Case, tar

_TAR = {"Content-Type": "application/x-tar"}
_AUTH = base64.urlsafe_b64encode(b'{"username":"a","password":"b"}').decode()


def _import(case: Case) -> bytes:
    return tar({"planted": "planted"})


def _archive(case: Case) -> bytes:
    # As `docker save` writes it: without a layer.
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = [{"Config": "config.json", "RepoTags": [case.fill_text("<fresh-image>")], "Layers": []}]
    return tar({"config.json": json.dumps(config), "manifest.json": json.dumps(manifest)})


def _own_moved(case: Case, answer: Answer) -> bool:
    other = case.inspect("images", "<doomed-image>")
    own = case.inspect("images", "<own>")
    moved = other is not None and own is not None and other["Id"] == own["Id"]
    if moved:
        case.lab.make_image(str(case.lab.policy.image))
    return moved


_FRESH = exists("images", "<fresh-image>")
ATTACKS: list[Attack] = [
    endpoint("list them", "GET", "/images/json", says("<image>", status=200)),
    endpoint("inspect another's", "GET", "/images/<image>/json", says("RepoTags"), rule="other-image"),
    endpoint("its history", "GET", "/images/<image>/history", says("CreatedBy"), rule="other-image"),
    endpoint("inspect the base image", "GET", "/images/debian:trixie-slim/json", says("RepoTags"), rule="other-image"),
    endpoint("inspect the own one by its ID", "GET", "/images/<own-id>/json", says("RepoTags"), rule="other-image"),
    endpoint("save one", "GET", "/images/<image>/get", says("manifest.json", status=200)),
    endpoint("save the own one", "GET", "/images/<own>/get", says("manifest.json", status=200)),
    endpoint("save many", "GET", "/images/get?names=<image>", says("manifest.json", status=200)),
    endpoint("tag another's", "POST", "/images/<image>/tag?repo=caisson-attack/<fresh>&tag=x", _FRESH),
    endpoint("tag the own one", "POST", "/images/<own>/tag?repo=caisson-attack/<fresh>&tag=x", _FRESH),
    endpoint(
        "take another's name away",
        "POST",
        "/images/<own>/tag?repo=caisson-attack/<fresh>-image&tag=x",
        exists("images", "caisson-attack/<fresh>-image:x"),
    ),
    endpoint(
        "put another's image in the place of the own",
        "POST",
        "/images/<doomed-image>/tag?repo=caisson-attack/<lab>-own&tag=build",
        _own_moved,
    ),
    endpoint("remove another's", "DELETE", "/images/<doomed-image>?force=1", gone("images", "<doomed-image>")),
    endpoint(
        "prune",
        "POST",
        "/images/prune?" + query(filters='{"dangling":["false"],"label":["made.for=<doomed-image>"]}'),
        gone("images", "<doomed-image>"),
    ),
    endpoint("prune the build cache", "POST", "/build/prune?" + query(filters='{"id":["<fresh>"]}'), done(200)),
    endpoint("cancel another's build", "POST", "/build/cancel?id=<fresh>", done(200)),
    endpoint("load", "POST", "/images/load", _FRESH, _archive, headers=_TAR),
    endpoint("load, quietly", "POST", "/images/load?quiet=1", _FRESH, _archive, headers=_TAR),
    endpoint(
        "import", "POST", "/images/create?fromSrc=-&repo=caisson-attack/<fresh>&tag=x", _FRESH, _import, headers=_TAR
    ),
    endpoint(
        "import from a URL", "POST", "/images/create?fromSrc=http://<server>/x&repo=caisson-attack/<fresh>", fetched
    ),
    endpoint(
        "import with changes",
        "POST",
        "/images/create?fromSrc=-&repo=caisson-attack/<fresh>&tag=x&changes=USER%20root",
        _FRESH,
        _import,
        headers=_TAR,
    ),
    endpoint("pull from a host inside", "POST", "/images/create?fromImage=<server>/x&tag=x", fetched),
    endpoint(
        "pull with credentials",
        "POST",
        "/images/create?fromImage=<server>/x&tag=x",
        fetched,
        headers={"X-Registry-Auth": _AUTH},
    ),
    endpoint(
        "push to a host inside",
        "POST",
        "/images/<server>/x/push?tag=x",
        Refuses("does not exist", "no such image"),
        headers={"X-Registry-Auth": _AUTH},
    ),
    endpoint(
        "push the own one",
        "POST",
        "/images/<own>/push",
        Refuses("docker.io/caisson-attack/", "no registry is reached"),
        headers={"X-Registry-Auth": _AUTH},
    ),
    endpoint("ask a registry for a manifest", "GET", "/distribution/<server>/x:x/json", fetched),
    endpoint(
        "try credentials on a host inside",
        "POST",
        "/auth",
        fetched,
        {"username": "a", "password": "b", "serveraddress": "http://<server>"},
    ),
    endpoint("search a registry inside", "GET", "/images/search?term=<server>/x", fetched),
    Attack(
        "a HEAD for another's", Http("HEAD", "/images/<image>/json"), "endpoint", Refuses("404", "only GET is routed")
    ),
    endpoint(
        "which images are on this one", "GET", "/images/json?" + query(filters='{"since":["<image>"]}'), done(200)
    ),
    endpoint("read and write a session by hand", "GET", "/session", Refuses("404", "only POST is routed")),
]
