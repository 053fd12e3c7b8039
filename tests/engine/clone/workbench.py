"""A running builder with git in it, as a flow has one, and repositories to be cloned into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from caisson.clone import Cloned, Source, clone, resolve
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID
from caisson.git import Chosen, parse_repository_url
from caisson.git_credentials import GitCredentials, git_environment
from caisson.plan import KEEPER
from tests.engine.repositories import Repository, git

PROTOCOLS = ("http", "ssh", "git")
TOKEN = "glpat-CANARY/7f3a9c51e2+d84b"
_USER = "10001:10001"
LFS_CONTENT = b"large\x00" * 5000
_DOCKERFILE = {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "one\n"}


@dataclass
class Builder:
    """A builder, and what the log got of it."""

    engine: DockerEngine
    id: ContainerID
    lines: list[str] = field(default_factory=list)

    def run(self, *argv: str) -> str:
        """Output of a program in the builder; fails the test when the program fails."""
        out: list[bytes] = []
        code = self.engine.exec(self.id, argv, user=_USER, on_output=lambda _, chunk: out.append(chunk), workdir="/app")
        text = b"".join(out).decode(errors="replace")
        assert code == 0, text
        return text

    def left_by(self, attack: str) -> bool:
        """Whether there is a file of that name where a program could have made one."""
        return attack in self.run("find", "/tmp", "/app", "-maxdepth", "1", "-name", attack)

    def empty(self) -> None:
        self.run("find", "/app", "/tmp", "-mindepth", "1", "-delete")
        self.lines.clear()

    def source(self, url: str, secret: str = "", *, known_hosts: str = "", **options: bool) -> Source:
        parsed = parse_repository_url(url, PROTOCOLS)
        credentials = GitCredentials.parse(secret) if secret else None
        env = git_environment(
            parsed, credentials, protocols=PROTOCOLS, known_hosts=known_hosts, lfs=options.get("lfs", False)
        )
        return Source(parsed, env, has_credentials=credentials is not None, **options)

    def resolve(self, source: Source, ref: str = "") -> Chosen:
        return resolve(self.engine, self.id, source, ref, self.lines.append, user=_USER)

    def clone(self, source: Source, chosen: Chosen, *, context: str = "", dockerfile: str = "") -> Cloned:
        return clone(
            self.engine,
            self.id,
            source,
            chosen,
            self.lines.append,
            user=_USER,
            context=context,
            dockerfile=dockerfile,
        )

    def get(self, url: str, ref: str = "", secret: str = "", **options: bool) -> Cloned:
        """Resolve and clone."""
        source = self.source(url, secret, **options)
        return self.clone(source, self.resolve(source, ref))


@contextmanager
def running_builder(docker_host: str, name: str, workspace: str = "64m") -> Iterator[Builder]:
    """A container of the builder's image, held as a real one is, removed at the end."""
    body = {
        "Image": "caisson-builder:latest",
        "Entrypoint": list(KEEPER),
        "Cmd": ["900"],
        "User": "10002:10002",
        "Env": ["HOME=/tmp"],
        "HostConfig": {
            "ReadonlyRootfs": True,
            "AutoRemove": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 512 << 20,
            "PidsLimit": 256,
            "Tmpfs": {
                "/tmp": "rw,noexec,nosuid,nodev,size=16m,mode=1777",
                "/app": f"rw,exec,nosuid,nodev,size={workspace},mode=0755,uid=10001,gid=10001",
            },
        },
    }
    with DockerEngine(docker_host) as engine:
        container = engine.create_container(name, body)
        try:
            engine.start_container(container)
            yield Builder(engine, container)
        finally:
            engine.remove_container(container)


class MakeRepository(Protocol):
    """Makes a repository; its ``url`` is the path below the servers' roots."""

    def __call__(
        self, files: Mapping[str, str | bytes] | None = None, *, object_format: str = "sha1"
    ) -> Repository: ...


def make_repository(
    root: Path, name: str, files: Mapping[str, str | bytes] | None = None, *, object_format: str = "sha1"
) -> Repository:
    directory = root / name
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
    repository = Repository(directory, f"/{name}/.git")
    repository.commit({**_DOCKERFILE, **(files or {})}, "first")
    return repository


def with_submodule(new: MakeRepository, url: str, *extra: str, commit: str = "") -> Repository:
    """A repository with a submodule ``lib`` at ``url``, written by hand: git itself would refuse some of them.

    In the URL ``{inner}`` is the path of a repository made for it, ``{name}`` its directory's name.
    """
    inner = new({"inner": "x\n"})
    sha = commit or git(inner.directory, "rev-parse", "HEAD")
    outer = new()
    url = url.format(inner=inner.url, name=inner.directory.name)
    outer.commit({".gitmodules": "\n".join(['[submodule "lib"]', "path = lib", f"url = {url}", *extra, ""])})
    git(outer.directory, "update-index", "--add", "--cacheinfo", f"160000,{sha},lib")
    git(outer.directory, "commit", "--quiet", "-m", "with a submodule")
    return outer


def submodule_of(outer: Repository) -> Repository:
    """The repository that ``with_submodule`` made for it."""
    url = git(outer.directory, "config", "--file", ".gitmodules", "submodule.lib.url")
    return Repository(outer.directory.parent / url.split("/")[-2], "")
