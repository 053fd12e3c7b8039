"""A classic build that asks for more than a build may: by its query, its headers, or a body that is read as a query."""

from __future__ import annotations

import base64

from tests.engine.attacks.case import Attack, Effect, Http, Refuses, done, exists, fetched, says
from tests.engine.attacks.lab import Case, tar

PLAIN = "FROM scratch\nCOPY Dockerfile /\nLABEL caisson.attack=<lab> case=<fresh>\n"
RUN = "FROM debian:trixie-slim\nLABEL caisson.attack=<lab> case=<fresh>\nRUN "
built = says("Successfully built")
_X_TAR = {"Content-Type": "application/x-tar"}


def build(
    name: str,
    asked: str,
    rule: str,
    works: Effect | Refuses = built,
    *,
    dockerfile: str = PLAIN,
    named: bool = True,
    headers: dict[str, str] | None = None,
    **more: object,
) -> Attack:
    """A build with that in its query, besides the own name."""

    def context(case: Case) -> bytes:
        return tar({"Dockerfile": case.fill_text(dockerfile)})

    target = f"/build?{'t=<own>' if named else ''}{'&' if named and asked else ''}{asked}"
    return Attack(name, Http("POST", target, context, _X_TAR | (headers or {})), rule, works, **more)  # type: ignore[arg-type]


def config(text: str) -> dict[str, str]:
    return {"X-Registry-Config": base64.urlsafe_b64encode(text.encode()).decode()}


def form(name: str, kind: str, body: str) -> Attack:
    """A build whose body is read as more of its query."""
    content = Http("POST", "/build?t=<own>", ("a" * 63 + "\n") * 1024 + body, {"Content-Type": kind})
    return Attack(name, content, "content-type", fetched)


_NO_IMAGE = exists("images", "<fresh-image>")
NETWORK = [
    build(
        "the host's network",
        "networkmode=host",
        "build-network",
        says("docker0"),
        dockerfile=f"{RUN} ls /sys/class/net",
    ),
    build("another container's network", "networkmode=container:<victim>", "build-network"),
    build("another network", "networkmode=<network>", "build-network"),
    build(
        "the host's network, in capitals",
        "networkmode=HOST",
        "build-network",
        Refuses("network HOST not found", "it is not the host's then"),
        dockerfile=f"{RUN} true",
    ),
    build(
        "a network's name with a NUL", "networkmode=host%00", "query", Refuses("HTTP/1.1", "there is no such network")
    ),
    build(
        "an extra host",
        "extrahosts=registry.invalid:127.0.0.1",
        "build-extrahosts",
        says("127.0.0.1"),
        dockerfile=f"{RUN} cat /etc/hosts",
    ),
    build("a context from a host inside", "remote=http://<server>/x", "build-remote", fetched),
    build("a Dockerfile from a host inside", "remote=http://<server>/Dockerfile&dockerfile=x", "build-remote", fetched),
    build(
        "a repository from a host inside",
        "remote=git://<server>/x.git",
        "build-remote",
        fetched,
        works_on={"": Refuses("HTTP/1.1 500", "its git is not there, or too new for git://")},
    ),
    build(
        "a repository of the host's files",
        "remote=file:///etc",
        "build-remote",
        Refuses("HTTP/1.1", "only http and git are fetched"),
    ),
    build(
        "a context that a session serves",
        "remote=client-session",
        "build-remote",
        Refuses("HTTP/1.1", "the classic builder has no session"),
    ),
]

LIMITS = [
    build(
        "memory without a limit",
        "memory=-1",
        "build-memory",
        works=Refuses("Minimum memory limit", "the engine has no such number"),
    ),
    build("more memory", "memory=1099511627776", "build-memory"),
    build("swap without a limit", "memory=67108864&memswap=-1", "build-memory"),
    build("more swap", "memory=67108864&memswap=1099511627776", "build-memory"),
    build("a number that is too large", "memory=99999999999999999999", "build-value", built),
    build("shared processors", "cpushares=100000", "build-cpushares"),
    build("chosen processors", "cpusetcpus=0", "build-cpusetcpus"),
    build("chosen memory", "cpusetmems=0", "build-cpusetmems"),
    build("more processors", "cpuperiod=100000&cpuquota=100000000", "build-cpus"),
    build("more processors by a short period", "cpuperiod=1000&cpuquota=100000", "build-cpus"),
    build("processors without a limit", "cpuquota=-1", "build-cpus"),
    build("a large /dev/shm", "shmsize=1099511627776", "build-memory"),
    build("other limits", "ulimits=%5B%7B%22Name%22:%22core%22,%22Hard%22:-1,%22Soft%22:-1%7D%5D", "build-ulimits"),
    build("another control group", "cgroupparent=/", "build-cgroup-parent"),
    build("a control group above", "cgroupparent=../../<lab>", "build-cgroup-parent"),
]

OUTPUT = [
    build("another's name", "t=<fresh-image>", "build-name", _NO_IMAGE, named=False),
    build("another's name besides the own", "t=<fresh-image>", "build-name", _NO_IMAGE),
    build(
        "the own name, by default latest",
        "t=caisson-attack/<lab>-own",
        "build-name",
        exists("images", "caisson-attack/<lab>-own:latest"),
        named=False,
    ),
    build(
        "a name with a digest",
        f"t=<own>@sha256:{'0' * 64}",
        "build-name",
        Refuses("HTTP/1.1", "a digest can't be tagged"),
        named=False,
    ),
    build("labels of another", "labels=%7B%22caisson.pool%22:%22x%22%7D", "build-labels"),
    build("the own label changed", "labels=%7B%22caisson.attacked%22:%22x%22%7D", "build-labels"),
    build(
        "outputs to the host",
        "outputs=%5B%7B%22Type%22:%22local%22,%22Attrs%22:%7B%22dest%22:%22/%22%7D%7D%5D",
        "build-outputs",
    ),
    build("layers of another image", "cachefrom=%5B%22<image>%22%5D", "build-cachefrom"),
    build("squashed", "squash=1", "build-squash", Refuses("experimental", "only experimental engines squash")),
    build("for another platform", "platform=linux/s390x", "build-platform", built),
    build(
        "security options",
        "securityopt=%5B%22seccomp=unconfined%22%5D",
        "build-securityopt",
        Refuses("400", "only engines on Windows take them"),
    ),
    build("a session of another", "session=<fresh>", "build-session"),
    build("a build's ID", "buildid=<fresh>", "build-buildid"),
    build(
        "BuildKit, by the classic way",
        "version=2&remote=http://<server>/x",
        "build-version",
        fetched,
    ),
    build("a version that is none", "version=3", "build-version", Refuses("version", "there are two builders")),
    build("a version that is nearly one", "version=01", "build-version", Refuses("version", "it is compared as text")),
]

SPELLING = [
    build("a key encoded", "networkm%6Fde=host", "query", says("docker0"), dockerfile=f"{RUN} ls /sys/class/net"),
    build(
        "a key twice, of which the first counts",
        "networkmode=host&networkmode=none",
        "query",
        says("docker0"),
        dockerfile=f"{RUN} ls /sys/class/net",
    ),
    build("the name's key encoded", "%74=<fresh-image>", "query", _NO_IMAGE),
    build("a key in capitals", "T=<fresh-image>", "query", built),
    build("a key that is not known", "privileged=1", "query-key", built),
    build("a key of other calls", "fromSrc=-", "query", built),
    build("a semicolon", "q=1;networkmode=host", "query", built),
    build("a second question mark", "q=0?networkmode=host", "build-value", done(200)),
    build("a key without a value", "networkmode", "query", built),
    build("an empty pair", "&&", "query", built),
    build("a fragment", "#networkmode=host", "query", built),
    build("a value that is not UTF-8", "target=%ff", "query", Refuses("target", "there is no such stage")),
    build("a line in a value", "dockerfile=Dockerfile%0aX", "query", Refuses("HTTP/1.1", "there is no such file")),
    build("an overlong escape", "networkmode=%c0%a8ost", "query", built),
    build("a broken escape", "networkmode=%zzhost", "query", built),
    build("many keys", "&".join(["t=<own>"] * 70), "query", built),
    build(
        "a Dockerfile above",
        "dockerfile=../Dockerfile",
        "build-dockerfile",
        Refuses("forbidden path outside the build context", "the engine looks too"),
    ),
    build(
        "a Dockerfile of the host",
        "dockerfile=/etc/passwd",
        "build-dockerfile",
        Refuses("HTTP/1.1", "paths begin at the context"),
    ),
    build(
        "a Dockerfile by a backslash",
        "dockerfile=..%5CDockerfile",
        "build-dockerfile",
        Refuses("HTTP/1.1", "there is no such file"),
    ),
    build(
        "a Dockerfile by dots, encoded",
        "dockerfile=%2e%2e%2fDockerfile",
        "build-dockerfile",
        Refuses("forbidden path outside the build context", "the engine looks too"),
    ),
    build("a stage that is none", "target=../x", "build-value", Refuses("target", "there is no such stage")),
    build("a flag that is a word", "nocache=yes", "build-value", built),
]

JSON = [
    build("arguments twice", "buildargs=%7B%22A%22:%221%22,%22A%22:%222%22%7D", "json", built),
    build(
        "labels twice", "labels=%7B%22caisson.attacked%22:%22<lab>%22,%22caisson.attacked%22:%22x%22%7D", "json", built
    ),
    build("arguments with NaN", "buildargs=%7B%22A%22:NaN%7D", "json", Refuses("HTTP/1.1 400", "it is not JSON")),
    build(
        "arguments with a number",
        "buildargs=%7B%22A%22:99999999999999999999%7D",
        "build-value",
        Refuses("HTTP/1.1 400", "it is no string"),
    ),
    build(
        "arguments with an object",
        "buildargs=%7B%22A%22:%7B%7D%7D",
        "build-value",
        Refuses("HTTP/1.1 400", "it is no string"),
    ),
    build(
        "arguments that are a list",
        "buildargs=%5B%22A%22%5D",
        "build-value",
        Refuses("HTTP/1.1 400", "it is no object"),
    ),
    build(
        "arguments with a mark at their beginning",
        "buildargs=%EF%BB%BF%7B%7D",
        "json",
        Refuses("HTTP/1.1 400", "it is not JSON"),
    ),
    build(
        "arguments and what follows them",
        "buildargs=%7B%7D%7B%22A%22:%221%22%7D",
        "json",
        Refuses("after top-level value", "its JSON is one value"),
    ),
    build(
        "arguments that are nested",
        "buildargs=" + "%5B" * 5_000 + "%5D" * 5_000,
        "json",
        Refuses("HTTP/1.1 400", "it is no object"),
    ),
    build("arguments with half a character", "buildargs=%7B%22A%22:%22%5Cud800%22%7D", "json", built),
    build("an argument with = in its name", "buildargs=%7B%22A%3DB%22:%22x%22%7D", "build-value", built),
    build("a label that is null", "labels=%7B%22caisson.attacked%22:null%7D", "build-value", built),
    build("labels as text", "labels=x", "json", Refuses("HTTP/1.1 400", "it is not JSON")),
]

HEADERS = [
    build(
        "credentials of a registry",
        "",
        "registry-config",
        headers=config('{"https://index.docker.io/v1/":{"username":"a","password":"b"}}'),
    ),
    build("credentials twice", "", "json", headers=config('{"a":{},"a":{"username":"b"}}')),
    build("credentials that are no JSON", "", "json", headers=config("{")),
    build("credentials that are not base64", "", "registry-config", headers={"X-Registry-Config": "&&&"}),
    build("credentials for a push", "", "header", headers={"X-Registry-Auth": "e30="}),
    build("a compressed body, said so", "", "header", headers={"Content-Encoding": "gzip"}),
    build(
        "a body of another type",
        "",
        "content-type",
        headers={"Content-Type": "application/octet-stream"},
        works=Refuses("HTTP/1.1 200", "the engine builds it and looks at no type but one"),
    ),
    build("a type with a parameter", "", "content-type", headers={"Content-Type": "application/x-tar; charset=x"}),
    build("a header of BuildKit's", "", "header", headers={"X-Docker-Expose-Session-Uuid": "x"}),
    build("a cookie", "", "header", headers={"Cookie": "a=b"}),
    build("an unknown expectation", "", "header", Refuses("417", "HTTP knows one only"), headers={"Expect": "200-ok"}),
    build("an upgrade", "", "header", headers={"Upgrade": "h2c"}),
    build("an upgrade, said so", "", "header", headers={"Connection": "Upgrade", "Upgrade": "h2c"}, waits=3.0),
    # The engine looks at the first 4 KiB of a body before it asks for values, and Go reads the rest as more of a query.
    form("a body that is read as a query", "application/x-www-form-urlencoded", "&remote=http://<server>/x"),
    form(
        "the same, with more to its type",
        "Application/X-WWW-Form-Urlencoded; charset=utf-8",
        "&remote=http://<server>/x",
    ),
    form(
        "a body of parts that is read as a query",
        "multipart/form-data; boundary=b",
        '\r\n--b\r\nContent-Disposition: form-data; name="remote"\r\n\r\nhttp://<server>/x\r\n--b--\r\n',
    ),
    Attack(
        "no body at all",
        Http("POST", "/build?t=<own>", None, _X_TAR),
        "context-dockerfile",
        Refuses("HTTP/1.1", "there is no Dockerfile"),
        reaches=True,
    ),
    Attack(
        "a body without a type",
        Http("POST", "/build?t=<own>", lambda case: tar({"Dockerfile": case.fill_text(PLAIN)})),
        "content-type",
        built,
    ),
]
ATTACKS = [*NETWORK, *LIMITS, *OUTPUT, *SPELLING, *JSON, *HEADERS]
