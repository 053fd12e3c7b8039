"""Containers of others on the engine: read, stopped, entered, copied from and into, and removed."""

from __future__ import annotations

import functools

from tests.engine.attacks.case import Attack, Http, Raw, Refuses, done, endpoint, exists, gone, has, query, says
from tests.engine.attacks.lab import Answer, Case, tar

STATE = functools.partial(has, kind="containers", name="<doomed-container>")
UPGRADE = "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"


def _file_is_there(case: Case, answer: Answer) -> bool:
    status, body = case.lab.engine("GET", case.fill_text("/containers/<doomed-container>/archive?path=/tmp/planted"))
    return status == 200 and b"planted" in body


def _image_is_there(case: Case, answer: Answer) -> bool:
    return case.inspect("images", "<fresh-image>") is not None


ATTACKS: list[Attack] = [
    endpoint("list them", "GET", "/containers/json?all=1", says("<victim>", status=200)),
    endpoint("inspect one, with its environment", "GET", "/containers/<victim>/json", says("TOKEN=s3cret")),
    endpoint(
        "its processes",
        "GET",
        "/containers/<victim>/top",
        says("sleep 600"),
        works_on={"26.1": Refuses("ps: exec:", "the machine of that engine has no ps")},
    ),
    endpoint("its logs", "GET", "/containers/<victim>/logs?stdout=1", done(200)),
    endpoint("its changes", "GET", "/containers/<victim>/changes", done(200)),
    endpoint("its figures", "GET", "/containers/<victim>/stats?stream=0&one-shot=1", says("memory_stats")),
    endpoint("export it", "GET", "/containers/<victim>/export", says("ustar", status=200)),
    endpoint("copy from it", "GET", "/containers/<victim>/archive?path=/etc/passwd", says("root:x:0:0")),
    endpoint(
        "look at a file in it", "HEAD", "/containers/<victim>/archive?path=/etc", says("X-Docker-Container-Path-Stat")
    ),
    endpoint(
        "copy into it",
        "PUT",
        "/containers/<doomed-container>/archive?path=/tmp",
        _file_is_there,
        lambda case: tar({"planted": "planted"}),
        headers={"Content-Type": "application/x-tar"},
    ),
    endpoint(
        "start one", "POST", "/containers/<doomed-stopped>/start", has("State.Running", True, name="<doomed-stopped>")
    ),
    endpoint("stop it", "POST", "/containers/<doomed-container>/stop?t=0", STATE("State.Running", False)),
    endpoint("kill it", "POST", "/containers/<doomed-container>/kill", STATE("State.Running", False)),
    endpoint(
        "send a signal of choice",
        "POST",
        "/containers/<doomed-container>/kill?signal=KILL",
        STATE("State.ExitCode", 137),
    ),
    endpoint("restart it", "POST", "/containers/<doomed-container>/restart?t=0", done(204)),
    endpoint("pause it", "POST", "/containers/<doomed-container>/pause", STATE("State.Paused", True)),
    endpoint("rename it", "POST", "/containers/<doomed-container>/rename?name=<fresh>", exists("containers")),
    endpoint(
        "change its limits",
        "POST",
        "/containers/<doomed-container>/update",
        STATE("HostConfig.CpuShares", 3),
        {"CpuShares": 3},
    ),
    endpoint("resize its terminal", "POST", "/containers/<victim>/resize?h=10&w=10", done(200)),
    endpoint("wait for it", "POST", "/containers/<victim>/wait?condition=not-running", says("HTTP/1.1 200"), waits=0.5),
    endpoint("remove it", "DELETE", "/containers/<doomed-container>?force=1", gone("containers", "<doomed-container>")),
    endpoint(
        "prune",
        "POST",
        "/containers/prune?" + query(filters='{"label":["attack=<doomed-stopped>"]}'),
        gone("containers", "<doomed-stopped>"),
    ),
    endpoint("commit it", "POST", "/commit?container=<victim>&repo=caisson-attack/<fresh>&tag=x", _image_is_there, {}),
    endpoint(
        "commit it with changes",
        "POST",
        "/commit?container=<victim>&repo=caisson-attack/<fresh>&tag=x&changes=USER%20root",
        _image_is_there,
        {"Entrypoint": ["/evil"]},
    ),
    endpoint(
        "prepare a command in it",
        "POST",
        "/containers/<victim>/exec",
        says('"Id"', status=201),
        {"Cmd": ["id"], "Privileged": True},
    ),
    endpoint("run a command in it", "POST", "/exec/<exec>/start", done(200), {"Detach": False}),
    endpoint("look at such a command", "GET", "/exec/<exec>/json", says("ProcessConfig")),
    endpoint("attach to it", "POST", "/containers/<victim>/attach?stream=1&stdout=1", says("HTTP/1.1 200"), waits=0.5),
    Attack(
        "attach to it, with an upgrade",
        Raw(f"POST /containers/<victim>/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n{UPGRADE}"),
        "endpoint",
        says("HTTP/1.1 101 UPGRADED"),
        waits=0.5,
    ),
    Attack(
        "attach to it, by a web socket",
        Raw(
            "GET /containers/<victim>/attach/ws?stream=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Origin: http://docker\r\n\r\n"
        ),
        "endpoint",
        says("101 Switching Protocols"),
        waits=0.5,
    ),
    Attack(
        "run a command in it, with an upgrade and input at once",
        Raw(
            "POST /exec/<exec>/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            'Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{"Detach":false}'
        ),
        "endpoint",
        says("HTTP/1.1", "already"),
    ),
    endpoint(
        "its checkpoints",
        "GET",
        "/containers/<victim>/checkpoints",
        Refuses("experimental", "only experimental engines have them"),
    ),
    Attack(
        "the oldest way to copy",
        Http("POST", "/v1.23/containers/<victim>/copy", {"Resource": "/etc/passwd"}),
        "api-version",
        says("root:x:0:0"),
        works_on={"26.1": Refuses("page not found", "26.1 begins with 1.24")},
    ),
    Attack(
        "a bind when it starts, as old versions allow",
        Http("POST", "/v1.23/containers/<doomed-stopped>/start", {"Binds": ["/:/host"]}),
        "api-version",
        has("HostConfig.Binds", ["/:/host"], name="<doomed-stopped>"),
        works_on={"26.1": Refuses("is too old", "26.1 begins with 1.24")},
    ),
]
