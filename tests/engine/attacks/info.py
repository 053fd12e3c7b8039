"""What the engine tells of its host, of others, and of its own insides."""

from __future__ import annotations

from tests.engine.attacks.case import Attack, Http, Refuses, done, endpoint, says

_NEVER_HERE = Refuses("404", "this engine was not started with --debug, or for metrics")


ATTACKS: list[Attack] = [
    Attack("info: the host's directories", Http("GET", "/info"), "info", says("/var/lib/docker"), status=200),
    Attack("info: the host's kernel and name", Http("GET", "/v1.41/info"), "info", says("KernelVersion"), status=200),
    Attack("version: the kernel", Http("GET", "/version"), "version", says('"Components":'), status=200),
    endpoint("events of others", "GET", "/events?since=1&until=2", done(200)),
    endpoint("events as they come", "GET", "/events", says("HTTP/1.1 200 OK"), waits=0.5),
    endpoint("what is on the disk", "GET", "/system/df", says("LayersSize")),
    endpoint("the profiler", "GET", "/debug/pprof/", says("go tool trace"), rule="path"),
    endpoint("its variables", "GET", "/debug/vars", says("memstats")),
    endpoint("metrics", "GET", "/metrics", _NEVER_HERE),
    endpoint("the root", "GET", "/", Refuses("404", "there is nothing"), rule="path"),
    endpoint("an unknown path", "GET", "/_ping2", Refuses("404", "there is nothing")),
    endpoint("whatever an unknown path may be", "POST", "/caisson", Refuses("404", "there is nothing")),
    Attack(
        "the own image: paths of the host",
        Http("GET", "/images/<own>/json"),
        "image",
        says("GraphDriver"),
        status=200,
        reaches=True,
    ),
    Attack(
        "the own image: when it got its name",
        Http("GET", "/images/<own>/json"),
        "image",
        says("LastTagTime"),
        status=200,
        reaches=True,
    ),
    Attack(
        "the own image: its names by others",
        Http("GET", "/images/<own>/json"),
        "image",
        says("<lab>-second:x"),
        status=200,
        reaches=True,
    ),
    Attack(
        "the own image: names of its layers",
        Http("GET", "/images/<own>/history"),
        "history",
        says("<lab>-second:x"),
        status=200,
        reaches=True,
    ),
]
