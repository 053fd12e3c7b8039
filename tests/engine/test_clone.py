"""Exactly the wanted commit comes into a real builder, from real git servers; credentials go nowhere else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from caisson.clone import Cloned, Source, clone, resolve
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID
from caisson.errors import (
    CaissonError,
    ContextInvalid,
    DockerfileInvalid,
    LfsFailed,
    RefNotFound,
    RepositoryDenied,
    RepositoryUnreachable,
    RequestInvalid,
    SubmoduleDenied,
    WorkspaceFull,
)
from caisson.git import Chosen, RepositoryURL, parse_repository_url
from caisson.git_credentials import GitCredentials, git_environment
from tests.conftest import EngineHost
from tests.engine.git_servers import GitHttp, GitSsh, git_http, git_ssh, lfs_pointer
from tests.engine.repositories import GitDaemon, Repository, git, git_daemon

PROTOCOLS = ("http", "ssh", "git")
TOKEN = "glpat-CANARY/7f3a9c51e2+d84b"
DOCKERFILE = {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "one\n"}


@dataclass
class Builder:
    """A running builder, as the flow has one, and what the log got."""

    engine: DockerEngine
    id: ContainerID
    lines: list[str] = field(default_factory=list)

    def run(self, *argv: str) -> str:
        """Output of a program in the builder; fails the test when the program fails."""
        out: list[bytes] = []
        code = self.engine.exec(self.id, argv, on_output=lambda _, chunk: out.append(chunk), workdir="/app")
        text = b"".join(out).decode(errors="replace")
        assert code == 0, text
        return text

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
        return resolve(self.engine, self.id, source, ref, self.lines.append)

    def clone(self, source: Source, chosen: Chosen, *, context: str = "", dockerfile: str = "") -> Cloned:
        return clone(self.engine, self.id, source, chosen, self.lines.append, context=context, dockerfile=dockerfile)

    def get(self, url: str, ref: str = "", secret: str = "", **options: bool) -> Cloned:
        source = self.source(url, secret, **options)
        return self.clone(source, self.resolve(source, ref))


def _start(engine: DockerEngine, name: str, workspace: str) -> ContainerID:
    body = {
        "Image": "caisson-builder:latest",
        "Cmd": ["sleep", "900"],
        "User": "10001:10001",
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
    container = engine.create_container(name, body)
    engine.start_container(container)
    return container


@pytest.fixture(scope="module")
def engine(engine_host: EngineHost) -> Iterator[DockerEngine]:
    with DockerEngine(engine_host.docker_host) as docker:
        yield docker


@pytest.fixture(scope="module")
def module_builder(engine: DockerEngine) -> Iterator[Builder]:
    container = _start(engine, "caisson-test-clone", "64m")
    yield Builder(engine, container)
    engine.remove_container(container)


@pytest.fixture
def builder(module_builder: Builder) -> Builder:
    module_builder.empty()
    return module_builder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, engine_host: EngineHost) -> Path:
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="module")
def http(root: Path, engine_host: EngineHost) -> Iterator[GitHttp]:
    with git_http(root, engine_host.gateway, {"oauth2": TOKEN}) as server:
        yield server


@pytest.fixture(scope="module")
def other(root: Path, engine_host: EngineHost) -> Iterator[GitHttp]:
    with git_http(root, engine_host.gateway, {"oauth2": TOKEN}) as server:
        yield server


@pytest.fixture(scope="module")
def ssh(
    root: Path, http: GitHttp, engine_host: EngineHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GitSsh]:
    lfs_url = f"{http.url}/smart"
    with git_ssh(root, engine_host.gateway, tmp_path_factory.mktemp("ssh"), lfs_url=lfs_url) as server:
        yield server


@pytest.fixture(scope="module")
def daemon(root: Path, engine_host: EngineHost) -> Iterator[GitDaemon]:
    with git_daemon(root, engine_host.gateway) as server:
        yield server


@pytest.fixture
def new(root: Path, request: pytest.FixtureRequest) -> Callable[..., Repository]:
    """Makes a repository; its URL is the path below the servers' roots."""
    made = 0

    def make(files: dict[str, Any] | None = None, *, object_format: str = "sha1") -> Repository:
        nonlocal made
        made += 1
        name = f"{abs(hash(request.node.nodeid)):x}-{made}"
        directory = root / name
        directory.mkdir()
        git(directory, "init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
        repository = Repository(directory, f"/{name}/.git")
        repository.commit({**DOCKERFILE, **(files or {})}, "first")
        return repository

    return make


@dataclass(frozen=True)
class Refs:
    """A repository with every kind of ref."""

    repository: Repository
    first: str
    hidden: str
    middle: str
    main: str
    feature: str
    pull: str
    tag_object: str


@pytest.fixture(scope="module")
def refs(root: Path) -> Refs:
    directory = root / "refs"
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch=main")
    repository = Repository(directory, "/refs/.git")
    first = repository.commit({**DOCKERFILE, "n": "1"})
    git(directory, "tag", "light")
    hidden = repository.commit({"n": "hidden"})
    middle = repository.commit({"n": "2"})
    git(directory, "checkout", "--quiet", "-b", "feature/x", first)
    feature = repository.commit({"n": "feature"})
    git(directory, "checkout", "--quiet", "--detach", first)
    pull = repository.commit({"n": "pull"})
    git(directory, "update-ref", "refs/pull/7/head", pull)
    git(directory, "update-ref", "refs/merge-requests/3/head", pull)
    git(directory, "checkout", "--quiet", "main")
    git(directory, "tag", "-a", "-m", "a release", "v1.0", middle)
    git(directory, "branch", "both", first)
    git(directory, "tag", "both", middle)
    main = repository.commit({"n": "3"})
    git(directory, "update-server-info")
    return Refs(repository, first, hidden, middle, main, feature, pull, git(directory, "rev-parse", "v1.0"))


KINDS = {
    "": ("main", "branch", "main", True),
    "HEAD": ("main", "branch", "main", True),
    "main": ("main", "branch", "main", True),
    "feature/x": ("feature", "branch", "feature/x", False),
    "refs/heads/feature/x": ("feature", "branch", "feature/x", False),
    "v1.0": ("middle", "tag", "v1.0", False),
    "refs/tags/v1.0": ("middle", "tag", "v1.0", False),
    "light": ("first", "tag", "light", False),
    "both": ("first", "branch", "both", False),
    "refs/tags/both": ("middle", "tag", "both", False),
    "refs/pull/7/head": ("pull", "pull_request", "7", False),
    "refs/merge-requests/3/head": ("pull", "pull_request", "3", False),
    "{main}": ("main", "commit", "", False),
    "{middle}": ("middle", "commit", "", False),
    "{hidden}": ("hidden", "commit", "", False),
    "{hidden:.8}": ("hidden", "commit", "", False),
    "{tag_object}": ("middle", "commit", "", False),
    "{main:.10}": ("main", "commit", "", False),
    "{middle:.8}": ("middle", "commit", "", False),
    "{pull:.7}": ("pull", "commit", "", False),
}


@pytest.mark.parametrize("ref", KINDS)
def test_every_kind_of_ref_gives_exactly_its_commit(ref: str, builder: Builder, http: GitHttp, refs: Refs) -> None:
    wanted, kind, name, is_default = KINDS[ref]
    source = builder.source(f"{http.url}/smart{refs.repository.url}")
    chosen = builder.resolve(source, ref.format_map(vars(refs)))
    assert (chosen.sha, chosen.kind, chosen.name) == (getattr(refs, wanted), kind, name)
    assert chosen.is_default_branch is is_default
    assert chosen.remote_tags == ("both", "light", "v1.0")
    assert builder.run("ls", "-A", "/app") == ""
    cloned = builder.clone(source, chosen)
    assert cloned.sha == builder.run("git", "rev-parse", "HEAD").strip() == getattr(refs, wanted)
    assert cloned.commit_time.timestamp() == float(builder.run("git", "log", "-1", "--format=%ct"))
    assert builder.run("git", "rev-list", "--count", "HEAD").strip() == "1"
    assert builder.run("git", "status", "--porcelain") == ""
    assert 4096 <= cloned.size_bytes < 1 << 20


@pytest.mark.parametrize("server", ["old", "dumb"])
@pytest.mark.parametrize("ref", ["main", "v1.0", "refs/pull/7/head", "{hidden}", "{hidden:.8}"])
def test_servers_that_give_no_single_commit_give_the_same(
    server: str, ref: str, builder: Builder, http: GitHttp, refs: Refs
) -> None:
    cloned = builder.get(f"{http.url}/{server}{refs.repository.url}", ref.format_map(vars(refs)))
    assert cloned.sha == builder.run("git", "rev-parse", "HEAD").strip() == getattr(refs, KINDS[ref][0])


@pytest.mark.parametrize("ref", ["", "v1.0", "refs/pull/7/head", "{hidden}", "{hidden:.8}"])
def test_every_kind_of_ref_comes_by_ssh_and_by_the_git_protocol(
    ref: str, builder: Builder, ssh: GitSsh, daemon: GitDaemon, refs: Refs
) -> None:
    text, wanted = ref.format_map(vars(refs)), getattr(refs, KINDS[ref][0])
    assert builder.get(ssh.url(refs.repository.url), text, ssh.key).sha == wanted
    builder.empty()
    assert builder.get(f"git://{daemon.address}:{daemon.port}{refs.repository.url}", text).sha == wanted


def test_a_name_of_a_branch_and_a_tag_is_the_branch_and_the_log_says_so(
    builder: Builder, http: GitHttp, refs: Refs
) -> None:
    builder.get(f"{http.url}/smart{refs.repository.url}", "both")
    assert "both is a branch and a tag: the branch is taken; refs/tags/both means the tag" in builder.lines


def test_a_tag_keeps_its_name_for_builds_that_ask_git_for_their_version(
    builder: Builder, http: GitHttp, refs: Refs
) -> None:
    builder.get(f"{http.url}/smart{refs.repository.url}", "v1.0")
    assert builder.run("git", "describe").strip() == "v1.0"
    assert builder.run("git", "rev-parse", "v1.0").strip() == refs.tag_object


@pytest.mark.parametrize(
    ("ref", "near"), [("mian", "main"), ("MAIN", "main"), ("v1", "v1.0"), ("feature", "feature/x")]
)
def test_a_ref_that_is_not_there_is_named_with_what_is_near(
    ref: str, near: str, builder: Builder, http: GitHttp, refs: Refs
) -> None:
    with pytest.raises(RefNotFound, match=f"'{ref}' is not in the repository") as caught:
        builder.get(f"{http.url}/smart{refs.repository.url}", ref)
    assert near in caught.value.hint


@pytest.mark.parametrize("ref", ["0123456789abcdef0123456789abcdef01234567", "0123456789"])
@pytest.mark.parametrize("server", ["smart", "old", "dumb"])
def test_a_commit_that_is_not_there_is_not_found(
    ref: str, server: str, builder: Builder, http: GitHttp, refs: Refs
) -> None:
    with pytest.raises(RefNotFound):
        builder.get(f"{http.url}/{server}{refs.repository.url}", ref)


def test_an_empty_repository_has_no_commit(builder: Builder, http: GitHttp, root: Path) -> None:
    (root / "empty").mkdir()
    git(root / "empty", "init", "--quiet", "--initial-branch=main")
    with pytest.raises(RefNotFound, match="HEAD has no commit"):
        builder.get(f"{http.url}/smart/empty/.git")


def test_a_sha256_repository_is_cloned(builder: Builder, http: GitHttp, new: Callable[..., Repository]) -> None:
    repository = new(object_format="sha256")
    cloned = builder.get(f"{http.url}/smart{repository.url}")
    assert cloned.sha == git(repository.directory, "rev-parse", "HEAD")
    assert len(cloned.sha) == 64


@pytest.mark.parametrize("server", ["smart", "old"])
def test_a_branch_that_moves_meanwhile_does_not_change_what_is_built(
    server: str, builder: Builder, http: GitHttp, new: Callable[..., Repository]
) -> None:
    repository = new()
    source = builder.source(f"{http.url}/{server}{repository.url}")
    chosen = builder.resolve(source, "main")
    repository.commit({"a": "two\n"})
    repository.commit({"a": "three\n"})
    assert builder.clone(source, chosen).sha == chosen.sha
    assert builder.run("cat", "/app/a") == "one\n"


@pytest.mark.parametrize(("server", "found"), [("smart", True), ("old", False)])
def test_a_branch_that_is_rewritten_meanwhile_is_built_or_refused_never_replaced(
    server: str, found: bool, builder: Builder, http: GitHttp, new: Callable[..., Repository]
) -> None:
    repository = new()
    source = builder.source(f"{http.url}/{server}{repository.url}")
    chosen = builder.resolve(source, "main")
    repository.commit({"a": "two\n"})
    git(repository.directory, "checkout", "--quiet", "--orphan", "new")
    repository.commit({"a": "three\n"})
    git(repository.directory, "branch", "-M", "new", "main")
    if found:
        assert builder.clone(source, chosen).sha == chosen.sha
    else:
        with pytest.raises(RefNotFound, match=chosen.sha[:7]):
            builder.clone(source, chosen)


def test_a_branch_that_is_deleted_meanwhile_is_still_built_from_its_commit(
    builder: Builder, http: GitHttp, new: Callable[..., Repository]
) -> None:
    repository = new()
    git(repository.directory, "branch", "gone")
    source = builder.source(f"{http.url}/smart{repository.url}")
    chosen = builder.resolve(source, "gone")
    git(repository.directory, "branch", "-D", "gone")
    assert builder.clone(source, chosen).sha == chosen.sha


@pytest.mark.parametrize(
    "name",
    ["$(touch${IFS}/tmp/pwned)", "`touch${IFS}/tmp/pwned`", "a;touch${IFS}/tmp/pwned", "a'b\"c", "a|b&c", "ünï/$HOME"],
)
def test_no_shell_sees_the_name_of_a_ref(
    name: str, builder: Builder, http: GitHttp, new: Callable[..., Repository]
) -> None:
    repository = new()
    git(repository.directory, "branch", name)
    assert builder.get(f"{http.url}/smart{repository.url}", name).sha
    assert "pwned" not in builder.run("ls", "-A", "/tmp", "/app")


class TestAccess:
    """Who may have the repository, and who gets the credentials."""

    def test_a_private_repository_is_cloned_with_a_token(
        self, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        http.asked.clear()
        builder.get(f"{http.url}/private{new().url}", secret=TOKEN)
        assert http.authorizations() == {f"oauth2:{TOKEN}"}

    def test_without_credentials_the_failure_tells_to_name_a_secret(
        self, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        with pytest.raises(RepositoryDenied, match="name a secret in git_credentials"):
            builder.get(f"{http.url}/private{new().url}")

    def test_with_wrong_credentials_the_failure_tells_to_check_them(
        self, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        with pytest.raises(RepositoryDenied, match="Check the credentials") as caught:
            builder.get(f"{http.url}/private{new().url}", secret="oauth2:wrong-token-1234")
        assert "wrong-token" not in f"{caught.value} {caught.value.details} {builder.lines}"

    @pytest.mark.parametrize(
        ("path", "failure"),
        [
            ("/smart/none/.git", RepositoryDenied),
            ("/status/404/x.git", RepositoryDenied),
            ("/status/403/x.git", RepositoryDenied),
            ("/status/503/x.git", RepositoryUnreachable),
            ("/status/429/x.git", RepositoryUnreachable),
        ],
    )
    def test_what_a_server_answers_decides_whether_it_is_worth_another_try(
        self, path: str, failure: type[CaissonError], builder: Builder, http: GitHttp
    ) -> None:
        with pytest.raises(failure) as caught:
            builder.get(f"{http.url}{path}")
        assert caught.value.retryable is (failure is RepositoryUnreachable)
        assert path in caught.value.message

    @pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
    def test_a_server_that_is_not_there_is_unreachable(
        self, scheme: str, builder: Builder, engine_host: EngineHost
    ) -> None:
        with socket.socket() as unused:
            unused.bind((engine_host.gateway, 0))
            with pytest.raises(RepositoryUnreachable):
                builder.get(f"{scheme}://{engine_host.gateway}:{unused.getsockname()[1]}/a.git")

    @pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
    def test_a_host_that_has_no_address_is_unreachable(self, scheme: str, builder: Builder) -> None:
        with pytest.raises(RepositoryUnreachable, match=r"host\.invalid"):
            builder.get(f"{scheme}://host.invalid/a.git")

    @pytest.mark.parametrize("path", ["away", "private-away"])
    def test_a_redirect_to_another_server_does_not_take_the_credentials_along(
        self, path: str, builder: Builder, http: GitHttp, other: GitHttp, new: Callable[..., Repository]
    ) -> None:
        other.asked.clear()
        target = f"{other.address}:{other.port}/private{new().url}"
        with pytest.raises(RepositoryDenied):
            builder.get(f"{http.url}/{path}/{target}", secret=TOKEN)
        assert other.asked
        assert other.authorizations() == set()

    def test_a_redirect_to_a_public_repository_is_followed(
        self, builder: Builder, http: GitHttp, other: GitHttp, new: Callable[..., Repository]
    ) -> None:
        assert builder.get(f"{http.url}/away/{other.address}:{other.port}/smart{new().url}").sha

    def test_ssh_lets_in_who_has_the_key_on_a_known_host(
        self, builder: Builder, ssh: GitSsh, new: Callable[..., Repository]
    ) -> None:
        source = builder.source(ssh.url(new().url), ssh.key, known_hosts=ssh.known_hosts)
        assert builder.clone(source, builder.resolve(source)).sha

    @pytest.mark.parametrize("key_type", ["rsa", "ecdsa"])
    def test_keys_of_other_types_do_as_well(
        self,
        key_type: str,
        builder: Builder,
        root: Path,
        engine_host: EngineHost,
        tmp_path: Path,
        new: Callable[..., Repository],
    ) -> None:
        with git_ssh(root, engine_host.gateway, tmp_path / "ssh", key_type=key_type) as ssh:
            assert builder.get(ssh.url(new().url), secret=ssh.key).sha

    def test_ssh_refuses_another_key(
        self,
        builder: Builder,
        ssh: GitSsh,
        root: Path,
        engine_host: EngineHost,
        tmp_path: Path,
        new: Callable[..., Repository],
    ) -> None:
        with git_ssh(root, engine_host.gateway, tmp_path / "ssh") as stranger:
            key = stranger.key
        with pytest.raises(RepositoryDenied, match="Check the credentials"):
            builder.get(ssh.url(new().url), secret=key)

    def test_a_host_key_that_is_not_the_known_one_is_refused(
        self,
        builder: Builder,
        ssh: GitSsh,
        root: Path,
        engine_host: EngineHost,
        tmp_path: Path,
        new: Callable[..., Repository],
    ) -> None:
        with git_ssh(root, engine_host.gateway, tmp_path / "ssh") as stranger:
            wrong = ssh.known_hosts.split()[0] + " " + stranger.known_hosts.split(" ", 1)[1]
            for known_hosts in (wrong, stranger.known_hosts):
                source = builder.source(ssh.url(new().url), ssh.key, known_hosts=known_hosts)
                with pytest.raises(RepositoryDenied, match="host key"):
                    builder.resolve(source)

    def test_a_key_that_is_none_is_the_fault_of_the_secret(
        self, builder: Builder, ssh: GitSsh, new: Callable[..., Repository]
    ) -> None:
        broken = ssh.key.replace("b3BlbnNzaC1rZXk", "b3BlbnNzaC1rZXg")
        with pytest.raises(RequestInvalid, match="git_credentials"):
            builder.get(ssh.url(new().url), secret=broken)

    def test_a_server_without_protocol_2_gives_an_old_commit(
        self, builder: Builder, refs: Refs, root: Path, engine_host: EngineHost, tmp_path: Path
    ) -> None:
        with git_ssh(root, engine_host.gateway, tmp_path / "ssh", old=True) as ssh:
            assert builder.get(ssh.url(refs.repository.url), refs.hidden, ssh.key).sha == refs.hidden
        assert any("fetching the history" in line for line in builder.lines)


def _with_submodule(new: Callable[..., Repository], url: str, *extra: str, commit: str = "") -> Repository:
    """A repository with a submodule ``lib`` at ``url``, written by hand: git itself would refuse some of them."""
    inner = new({"inner": "x\n"})
    sha = commit or git(inner.directory, "rev-parse", "HEAD")
    outer = new()
    url = url.format(inner=inner.url, name=inner.url.split("/")[1])
    lines = ['[submodule "lib"]', "path = lib", f"url = {url}", *extra]
    outer.commit({".gitmodules": "\n".join(lines) + "\n"})
    git(outer.directory, "update-index", "--add", "--cacheinfo", f"160000,{sha},lib")
    git(outer.directory, "commit", "--quiet", "-m", "with a submodule")
    return outer


class TestSubmodules:
    """Submodules come from allowed places, and get the credentials only where they belong."""

    def test_they_are_left_out_unless_asked_for(
        self, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        outer = _with_submodule(new, f"{http.url}/smart{{inner}}")
        assert builder.get(f"{http.url}/smart{outer.url}").submodules == ()
        assert builder.run("ls", "-A", "/app/lib") == ""

    @pytest.mark.parametrize("url", ["{base}/smart{{inner}}", "../../{{name}}/.git"])
    def test_absolute_and_relative_ones_are_cloned(
        self, url: str, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        outer = _with_submodule(new, url.format(base=http.url))
        cloned = builder.get(f"{http.url}/smart{outer.url}", submodules=True)
        assert cloned.submodules == ("lib",)
        assert builder.run("cat", "/app/lib/inner") == "x\n"

    def test_submodules_of_submodules_are_cloned(
        self, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        middle = _with_submodule(new, f"{http.url}/smart{{inner}}")
        sha = git(middle.directory, "rev-parse", "HEAD")
        outer = _with_submodule(new, f"{http.url}/smart{middle.url}", commit=sha)
        cloned = builder.get(f"{http.url}/smart{outer.url}", submodules=True)
        assert cloned.submodules == ("lib", "lib/lib")

    @pytest.mark.parametrize("server", ["smart", "old", "dumb"])
    def test_an_old_commit_of_a_submodule_is_found(
        self, server: str, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        outer = _with_submodule(new, f"{http.url}/{server}{{inner}}")
        url = git(outer.directory, "config", "--file", ".gitmodules", "submodule.lib.url")
        inner = Repository(outer.directory.parent / url.split("/")[-2], "")
        inner.commit({"inner": "newer\n"})
        git(inner.directory, "update-server-info")
        builder.get(f"{http.url}/smart{outer.url}", submodules=True)
        assert builder.run("cat", "/app/lib/inner") == "x\n"

    def test_a_private_one_on_the_same_server_gets_the_credentials(
        self, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        outer = _with_submodule(new, "../../{name}/.git")
        assert builder.get(f"{http.url}/private{outer.url}", secret=TOKEN, submodules=True).submodules == ("lib",)

    def test_one_on_another_server_does_not_get_the_credentials(
        self, builder: Builder, http: GitHttp, other: GitHttp, new: Callable[..., Repository]
    ) -> None:
        other.asked.clear()
        outer = _with_submodule(new, f"{other.url}/private{{inner}}")
        with pytest.raises(SubmoduleDenied, match="'lib'"):
            builder.get(f"{http.url}/private{outer.url}", secret=TOKEN, submodules=True)
        assert other.asked
        assert other.authorizations() == set()

    def test_a_relative_one_comes_by_ssh_with_the_same_key_and_not_from_another_host(
        self,
        builder: Builder,
        ssh: GitSsh,
        root: Path,
        engine_host: EngineHost,
        tmp_path: Path,
        new: Callable[..., Repository],
    ) -> None:
        outer = _with_submodule(new, "../../{name}/.git")
        assert builder.get(ssh.url(outer.url), secret=ssh.key, submodules=True).submodules == ("lib",)
        builder.empty()
        with git_ssh(root, engine_host.gateway, tmp_path / "ssh") as elsewhere:
            (tmp_path / "ssh" / "user.pub").write_text((ssh.log.parent / "user.pub").read_text())
            outer = _with_submodule(new, elsewhere.url("{inner}"))
            with pytest.raises(SubmoduleDenied):
                builder.get(ssh.url(outer.url), secret=ssh.key, submodules=True)
            assert "Accepted" not in elsewhere.log.read_text()
            assert "Postponed" not in elsewhere.log.read_text()

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("file:///app/.git", "protocol 'file'"),
            ("/app/.git", "protocol 'file'"),
            ("ext::sh -c touch% /tmp/pwned", "protocol 'ext'"),
            ("ext::/usr/bin/touch /tmp/pwned", "protocol 'ext'"),
            ("https://host.invalid/a.git", "protocol 'https'"),
            ("ssh://-oProxyCommand=touch%20/tmp/pwned/x", "'lib'"),
            ("-u./payload", "gitmodulesUrl"),
        ],
    )
    def test_other_protocols_and_options_are_refused(
        self, url: str, reason: str, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        outer = _with_submodule(new, url)
        with pytest.raises(SubmoduleDenied, match=reason):
            builder.get(f"{http.url}/smart{outer.url}", submodules=True)
        assert "pwned" not in builder.run("ls", "-A", "/tmp", "/app")

    def test_a_command_in_gitmodules_is_not_run(
        self, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        outer = _with_submodule(new, f"{http.url}/smart{{inner}}", "update = !touch /tmp/pwned")
        with pytest.raises(SubmoduleDenied):
            builder.get(f"{http.url}/smart{outer.url}", submodules=True)
        assert "pwned" not in builder.run("ls", "-A", "/tmp", "/app")


LFS_CONTENT = b"large\x00" * 5000


class TestLfs:
    """LFS files are there when asked for, from allowed places."""

    @pytest.fixture
    def repository(self, new: Callable[..., Repository], http: GitHttp) -> Repository:
        attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
        return new({".gitattributes": attributes, "big.bin": lfs_pointer(http, LFS_CONTENT)})

    def test_they_are_pointers_unless_asked_for(self, builder: Builder, http: GitHttp, repository: Repository) -> None:
        assert builder.get(f"{http.url}/smart{repository.url}").lfs_files == 0
        assert builder.run("head", "-c", "7", "/app/big.bin") == "version"

    @pytest.mark.parametrize(("server", "secret"), [("smart", ""), ("private", TOKEN)])
    def test_they_are_fetched_and_kept_once(
        self, server: str, secret: str, builder: Builder, http: GitHttp, repository: Repository
    ) -> None:
        cloned = builder.get(f"{http.url}/{server}{repository.url}", secret=secret, lfs=True)
        assert cloned.lfs_files == 1
        assert builder.run("cat", "/app/big.bin") == LFS_CONTENT.decode()
        assert builder.run("find", "/app/.git", "-size", f"{len(LFS_CONTENT)}c") == ""

    def test_they_come_with_a_repository_that_is_had_by_ssh(
        self, builder: Builder, ssh: GitSsh, repository: Repository
    ) -> None:
        assert builder.get(ssh.url(repository.url), secret=ssh.key, lfs=True).lfs_files == 1
        assert builder.run("cat", "/app/big.bin") == LFS_CONTENT.decode()

    def test_they_come_in_submodules(self, builder: Builder, http: GitHttp, new: Callable[..., Repository]) -> None:
        outer = _with_submodule(new, f"{http.url}/smart{{inner}}")
        url = git(outer.directory, "config", "--file", ".gitmodules", "submodule.lib.url")
        inner = Repository(outer.directory.parent / url.split("/")[-2], "")
        sha = inner.commit({".gitattributes": "*.bin filter=lfs\n", "big.bin": lfs_pointer(http, LFS_CONTENT)})
        git(outer.directory, "update-index", "--cacheinfo", f"160000,{sha},lib")
        git(outer.directory, "commit", "--quiet", "-m", "newer")
        builder.get(f"{http.url}/smart{outer.url}", lfs=True, submodules=True)
        assert builder.run("cat", "/app/lib/big.bin") == LFS_CONTENT.decode()

    def test_a_missing_object_is_a_failure_of_lfs(
        self, builder: Builder, http: GitHttp, repository: Repository
    ) -> None:
        http.objects.clear()
        with pytest.raises(LfsFailed, match="Object does not exist"):
            builder.get(f"{http.url}/smart{repository.url}", lfs=True)

    def test_an_lfs_server_elsewhere_does_not_get_the_credentials(
        self, builder: Builder, http: GitHttp, other: GitHttp, repository: Repository
    ) -> None:
        other.asked.clear()
        repository.commit({".lfsconfig": f"[lfs]\nurl = {other.url}/private{repository.url}/info/lfs\n"})
        with pytest.raises(LfsFailed):
            builder.get(f"{http.url}/private{repository.url}", secret=TOKEN, lfs=True)
        assert other.asked
        assert other.authorizations() == set()


class TestContext:
    """The context and the Dockerfile are in the repository, whatever symlinks say."""

    def _get(
        self, builder: Builder, http: GitHttp, repository: Repository, context: str = "", dockerfile: str = ""
    ) -> None:
        source = builder.source(f"{http.url}/smart{repository.url}")
        builder.clone(source, builder.resolve(source), context=context, dockerfile=dockerfile)

    def _link(self, repository: Repository, name: str, target: str) -> None:
        (repository.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (repository.directory / name).symlink_to(target)
        repository.commit({})

    @pytest.mark.parametrize(
        ("context", "dockerfile"),
        [
            ("", ""),
            ("sub", "other.Dockerfile"),
            ("sub/deep", "../other.Dockerfile"),
            ("inside", "other.Dockerfile"),
            ("sub", "linked"),
        ],
    )
    def test_what_is_in_the_repository_passes(
        self, context: str, dockerfile: str, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        repository = new({"sub/other.Dockerfile": "FROM scratch\n", "sub/deep/x": ""})
        self._link(repository, "inside", "sub")
        self._link(repository, "sub/linked", "../Dockerfile")
        self._get(builder, http, repository, context, dockerfile)

    @pytest.mark.parametrize(
        ("name", "target", "failure"),
        [
            ("ctx", "/etc", ContextInvalid),
            ("ctx", "..", ContextInvalid),
            ("ctx", "/proc/self/root/app", DockerfileInvalid),
            ("ctx/Dockerfile", "/etc/passwd", DockerfileInvalid),
            ("ctx/Dockerfile", "/proc/self/environ", DockerfileInvalid),
            ("ctx/Dockerfile", "../../etc/passwd", DockerfileInvalid),
            ("ctx/Dockerfile", "/none", DockerfileInvalid),
        ],
    )
    def test_a_symlink_that_leads_out_is_refused(
        self,
        name: str,
        target: str,
        failure: type[CaissonError],
        builder: Builder,
        http: GitHttp,
        new: Callable[..., Repository],
    ) -> None:
        repository = new()
        self._link(repository, name, target)
        if target == "/proc/self/root/app":
            # It is the workspace again, by another way: what counts is where it leads.
            self._get(builder, http, repository, "ctx")
            return
        with pytest.raises(failure, match="symlink"):
            self._get(builder, http, repository, "ctx")

    @pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
    def test_a_dockerignore_that_leads_out_is_refused(
        self, name: str, builder: Builder, http: GitHttp, new: Callable[..., Repository]
    ) -> None:
        repository = new()
        self._link(repository, name, "/proc/self/environ")
        with pytest.raises(ContextInvalid, match="dockerignore"):
            self._get(builder, http, repository)

    @pytest.mark.parametrize(
        ("context", "dockerfile", "failure", "hint"),
        [
            ("none", "", ContextInvalid, "There is Dockerfile, docker/web.Dockerfile"),
            ("Dockerfile", "", ContextInvalid, "There is"),
            ("docker", "", DockerfileInvalid, "Set dockerfile to web.Dockerfile"),
            ("", "dockerfile.web", DockerfileInvalid, "docker/web.Dockerfile"),
            ("", "docker", DockerfileInvalid, "docker/web.Dockerfile"),
            (";;", "", ContextInvalid, ""),
            ("$(touch${IFS}/tmp/pwned)", "", ContextInvalid, ""),
        ],
    )
    def test_what_is_missing_is_named_with_what_there_is(
        self,
        context: str,
        dockerfile: str,
        failure: type[CaissonError],
        hint: str,
        builder: Builder,
        http: GitHttp,
        new: Callable[..., Repository],
    ) -> None:
        repository = new({"docker/web.Dockerfile": "FROM scratch\n"})
        with pytest.raises(failure) as caught:
            self._get(builder, http, repository, context, dockerfile)
        assert hint in caught.value.hint
        assert "pwned" not in builder.run("ls", "-A", "/tmp", "/app")


def test_a_repository_that_does_not_fit_fills_the_workspace(
    engine: DockerEngine, http: GitHttp, new: Callable[..., Repository]
) -> None:
    container = _start(engine, "caisson-test-clone-small", "1m")
    try:
        repository = new({"random": os.urandom(3 << 20)})
        with pytest.raises(WorkspaceFull, match=r"limits\.workspace"):
            Builder(engine, container).get(f"{http.url}/smart{repository.url}")
    finally:
        engine.remove_container(container)


def _command_lines() -> bytes:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes())
        except OSError:
            continue
    return b"\n".join(found)


@pytest.mark.parametrize("way", ["token", "key"])
def test_credentials_are_in_no_argument_file_inspect_output_or_log(
    way: str,
    builder: Builder,
    http: GitHttp,
    ssh: GitSsh,
    new: Callable[..., Repository],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outer = _with_submodule(new, "../../{name}/.git")
    secret, url = (TOKEN, f"{http.url}/private{outer.url}") if way == "token" else (ssh.key, ssh.url(outer.url))
    canaries = (
        [TOKEN.encode(), TOKEN.encode()[6:20]]
        if way == "token"
        else [line.encode() for line in ssh.key.split("\n")[1:-2]]
    )
    exec_ids: list[str] = []
    api = builder.engine._api
    create = api.exec_create
    monkeypatch.setattr(api, "exec_create", lambda *a, **k: exec_ids.append((made := create(*a, **k))["Id"]) or made)
    seen: list[bytes] = []
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            seen.append(_command_lines())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        source = builder.source(url, secret, submodules=True)
        builder.clone(source, builder.resolve(source))
    finally:
        done.set()
        sampler.join()
    command_lines = b"\n".join(seen)
    assert b"run-steps" in command_lines
    assert len(exec_ids) == 2
    places = {
        "command lines": command_lines,
        "inspect of the container": repr(api.inspect_container(builder.id)).encode(),
        "inspect of the execs": b"".join(repr(api.exec_inspect(exec_id)).encode() for exec_id in exec_ids),
        "the container's own log": api.logs(builder.id),
        "the log": "\n".join(builder.lines).encode(),
        "the source as a text": repr(source).encode(),
        "the root file system": b"".join(api.export(builder.id)),
        # A tmpfs is not in an export.
        "the workspace and /tmp": builder.run("tar", "-cf", "-", "-C", "/", "app", "tmp").encode(),
        "what still runs": builder.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").encode(),
    }
    for place, content in places.items():
        for canary in canaries:
            assert canary not in content, place
    assert b"ssh-agent" not in places["what still runs"]


def test_the_servers_own_words_are_logged_without_control_characters_or_credentials(
    builder: Builder, http: GitHttp, new: Callable[..., Repository]
) -> None:
    with pytest.raises(CaissonError) as caught:
        builder.get(f"{http.url}/status/404/{TOKEN.replace('/', '')}.git", secret=TOKEN.replace("/", ""))
    assert TOKEN.replace("/", "") not in "\n".join(builder.lines)
    assert caught.value.details["step"] == "resolve"


def test_a_url_keeps_no_credentials_to_begin_with(
    builder: Builder, http: GitHttp, new: Callable[..., Repository]
) -> None:
    url = f"{http.url}/private{new().url}"
    builder.get(url, secret=TOKEN)
    assert builder.run("git", "config", "--local", "--list").count("@") == 0
    assert isinstance(parse_repository_url(url, PROTOCOLS), RepositoryURL)
