"""Paths and versions that different readers take for different things."""

from __future__ import annotations

from tests.engine.attacks.case import Attack, Http, Raw, Refuses, done, says

_LIST = says("<victim>", status=200)
_OLD = {"20.10": _LIST}
_TOO_OLD = Refuses("too old", "26.1 begins with 1.24")
_CLEANED = Refuses("301", "the engine redirects to the path without it")
_NOT_FOUND = Refuses("404", "nothing is routed there")


def path(name: str, target: str, rule: str, works: object = _LIST, **more: object) -> Attack:
    return Attack(name, Http("GET", target), rule, works, **more)  # type: ignore[arg-type]


_ALL = "containers/json?all=1"
ATTACKS: list[Attack] = [
    path("the oldest version", f"/v1.12/{_ALL}", "api-version", _TOO_OLD, works_on=_OLD),
    path("an old version", f"/v1.24/{_ALL}", "api-version"),
    path("the last version before", f"/v1.40/{_ALL}", "api-version"),
    path("a version that is to come", f"/v1.99/{_ALL}", "api-version", Refuses("too new", "it is not known yet")),
    path("an old version of a ping", "/v1.24/_ping", "api-version", says("OK", status=200)),
    path(
        "a version with a third part",
        f"/v1.41.1/{_ALL}",
        "endpoint",
        _LIST,
        works_on={"20.10": Refuses("too new", "it is compared part by part")},
    ),
    path("a version with a zero before it", f"/v01.41/{_ALL}", "endpoint", _LIST),
    path("a version with a zero in it", f"/v1.041/{_ALL}", "endpoint", _LIST),
    path("a version without its second part", f"/v1/{_ALL}", "endpoint", Refuses("too old", "it is 1.0")),
    path("a version in capitals", f"/V1.41/{_ALL}", "endpoint", _NOT_FOUND),
    path("two versions", f"/v1.41/v1.41/{_ALL}", "endpoint", _NOT_FOUND),
    path("two versions and a ping", "/v1.41/v1.24/_ping", "endpoint", _NOT_FOUND),
    path("a version alone", "/v1.41", "endpoint", _NOT_FOUND),
    path("the plain path", f"/{_ALL}", "endpoint"),
    path("the plain path of a version", f"/v1.41/{_ALL}", "endpoint"),
    path("two slashes at first", f"//{_ALL}", "path", _CLEANED),
    path("a host after two slashes", f"//docker/{_ALL}", "path", _CLEANED),
    path("two slashes later", "/containers//json?all=1", "path", _CLEANED),
    path("a dot", f"/./{_ALL}", "path", _CLEANED),
    path("two dots", f"/_ping/../{_ALL}", "path", _CLEANED),
    path("two dots after a version", f"/v1.41/../v1.24/{_ALL}", "path", _CLEANED),
    path("two dots after the own image", "/images/<own>/../../containers/json", "path", _CLEANED),
    path("a slash at the end", "/containers/json/?all=1", "path", _NOT_FOUND),
    path("a slash after a ping", "/_ping/", "path", _NOT_FOUND),
    path("an encoded letter", "/%63ontainers/json?all=1", "path"),
    path("an encoded letter of a version", f"/v1%2e41/{_ALL}", "path"),
    path("an encoded slash", "/containers%2fjson?all=1", "path", _LIST),
    path("encoded dots", f"/_ping/%2e%2e/{_ALL}", "path", _CLEANED),
    path("encoded twice", "/containers%252fjson", "path", _NOT_FOUND),
    path("an encoded NUL", "/images/<own>%00/json", "path", Refuses("invalid reference format", "it is no name")),
    path("an encoded line end", f"/_ping%0d%0aX:%20y/{_ALL}", "path", _NOT_FOUND),
    path("a semicolon", "/_ping;/containers/json", "path", _NOT_FOUND),
    path("a parameter of a segment", "/containers;x=y/json", "path", _NOT_FOUND),
    path("a backslash", "/_ping\\..\\containers\\json", "path", _NOT_FOUND),
    path("an asterisk", "*", "path", _CLEANED),
    path("an absolute target", f"http://docker/{_ALL}", "path"),
    path("an absolute target of another host", f"http://other.invalid/v1.41/{_ALL}", "path"),
    path("an absolute target of another kind", f"unix:///{_ALL}", "path", _LIST),
    path("a fragment", "/_ping#/../containers/json", "path", _CLEANED),
    path("a ping with a query", "/_ping?x=1", "query-key", says("OK", status=200)),
    path("a version's answer with a query", "/version?format=json", "query-key", says('"Components"')),
    path("the own image, with a query", "/images/<own>/json?manifests=1", "query-key", says("RepoTags")),
    path("a ping in capitals", "/_PING", "endpoint", _NOT_FOUND),
    path("another's image behind the own name", "/images/<own>/json/../../<image>/json", "path", _CLEANED),
    path(
        "another's image between",
        "/images/<own>/<image>/json",
        "other-image",
        Refuses("invalid reference format", "it is no name"),
    ),
    path(
        "the own image with a digest",
        f"/images/<own>@sha256:{'0' * 64}/json",
        "other-image",
        Refuses("No such image", "it has none"),
    ),
    path("an image whose name is a path", "/images/containers/json", "other-image", _NOT_FOUND),
    path("an image whose name is a search", "/images/search/json", "other-image", _NOT_FOUND),
    Attack(
        "letters beyond ASCII",
        Raw("GET /\xc3\xa9/../containers/json HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"),
        "http",
        _CLEANED,
        status=400,
    ),
    Attack("to connect", Http("CONNECT", "docker:80"), "path", _CLEANED),
    Attack("options of all", Http("OPTIONS", "*"), "path", done(200)),
    Attack("options of one", Http("OPTIONS", "/_ping"), "endpoint", done(200)),
    Attack("a trace", Http("TRACE", "/_ping"), "endpoint", _NOT_FOUND),
    Attack("a ping that is sent", Http("POST", "/_ping", ""), "endpoint", _NOT_FOUND),
    Attack("a build that is asked for", Http("GET", "/build?t=<own>"), "endpoint", _NOT_FOUND),
    Attack("a build that is put", Http("PUT", "/build?t=<own>", ""), "endpoint", _NOT_FOUND),
    Attack("a method of one's own", Http("LIST", "/containers"), "endpoint", _NOT_FOUND),
]
