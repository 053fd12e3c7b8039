"""The wanted commit into the builder's workspace: resolved, fetched shallow, checked. A thin shell over the engine.

Each of ``resolve`` and ``clone`` costs one exec: the program ``run-steps`` of the builder's image runs the git commands
one after the other. A server that gives single commits (every one that speaks protocol 2 does) is asked for nothing
else; from another the history is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from caisson.engine import ContainerID, Engine, Stream
from caisson.errors import CaissonError, RefNotFound
from caisson.git import Chosen, RepositoryURL, choose_commit, parse_ls_remote
from caisson.git_credentials import LIBEXEC
from caisson.git_failures import (
    classify_context_failure,
    classify_git_failure,
    is_certainly_absent,
    is_refusal_of_one_commit,
)
from caisson.git_output import ProgressLines, StepsOutput
from caisson.plan import WORKSPACE
from caisson.redact import Redactor

_SEARCH = f"{WORKSPACE}/.caisson-search"
_SECRET_VARIABLES = ("CAISSON_GIT_PASSWORD", "CAISSON_GIT_SSH_KEY")

Log = Callable[[str], None]
Step = tuple[str, ...]
"""Name, program, arguments; a name that ends in ``?`` is one whose output is wanted."""


@dataclass(frozen=True)
class Source:
    """Where from and how: ``env`` is what ``git_environment`` made, and holds the credentials."""

    url: RepositoryURL
    env: Mapping[str, str] = field(repr=False)
    submodules: bool = False
    lfs: bool = False
    has_credentials: bool = False


@dataclass(frozen=True)
class Cloned:
    """What is in the workspace now; ``size_bytes`` as the file system counts it, git's own directory included."""

    sha: str
    commit_time: datetime
    size_bytes: int
    submodules: tuple[str, ...] = ()
    lfs_files: int = 0


def resolve(engine: Engine, container: ContainerID, source: Source, ref: str, log: Log, *, user: str) -> Chosen:
    """Ask the remote for its refs and choose the commit that ``ref`` means now; its ``sha`` is never empty.

    Raises ``RefNotFound``, ``RepositoryDenied``, ``RepositoryUnreachable``, ``RequestInvalid``.
    """
    shell = _Steps(engine, container, user, source, log)
    answers = shell.run([("resolve?", "git", "ls-remote", "--symref", "--", str(source.url))])
    chosen = choose_commit(parse_ls_remote(answers["resolve"]), ref)
    if chosen.note:
        log(chosen.note)
    if chosen.sha:
        return chosen
    log(f"{ref} is a short SHA that the remote does not advertise: looking for it in the history")
    answers = shell.run(search_steps(source, ref))
    return replace(chosen, sha=answers["commit"].decode("ascii", "replace").strip())


def clone(
    engine: Engine,
    container: ContainerID,
    source: Source,
    chosen: Chosen,
    log: Log,
    *,
    user: str,
    context: str,
    dockerfile: str,
) -> Cloned:
    """Check out exactly the chosen commit at ``/app``, and check the context and the Dockerfile in it.

    Raises ``RefNotFound``, ``RepositoryDenied``, ``RepositoryUnreachable``, ``SubmoduleDenied``, ``LfsFailed``,
    ``WorkspaceFull``, ``ContextInvalid``, ``DockerfileInvalid``.
    """
    shell = _Steps(engine, container, user, source, log, context=context, dockerfile=dockerfile)
    fetched_whole = False
    submodules_whole = False
    steps = clone_steps(source, chosen)
    while True:
        try:
            answers = shell.run([*steps, *report_steps(source, context, dockerfile)])
        except _OnlyWhole as refusal:
            # What was made until now stays; each step can be done again.
            may_be_there = bool(chosen.fetch_ref) or not refusal.certainly_absent
            if refusal.step == "fetch" and not fetched_whole and may_be_there:
                fetched_whole = True
                log(f"the server does not give {chosen.sha[:12]} by itself: fetching the history")
            elif refusal.step == "submodules" and not submodules_whole:
                submodules_whole = True
                log("a submodule's server does not give its commit by itself: fetching the histories")
            else:
                raise refusal.meaning from None
            steps = clone_steps(source, chosen, whole=fetched_whole, whole_submodules=submodules_whole)
        else:
            return parse_report(answers, chosen.sha)


def clone_steps(source: Source, chosen: Chosen, *, whole: bool = False, whole_submodules: bool = False) -> list[Step]:
    """From an empty workspace to the checked out commit: shallow, or with the ``whole`` history of all refs. Pure."""
    steps = [
        _init(chosen.sha, WORKSPACE),
        ("init", "git", "config", "remote.origin.url", str(source.url)),
        ("fetch", "git", "fetch", *_FETCH, *(_whole_history(chosen.fetch_ref) if whole else _one_commit(chosen))),
        ("checkout", "git", "checkout", "--quiet", "--force", "--detach", chosen.sha),
    ]
    if source.submodules:
        update = ("submodules", "git", "submodule", "--quiet", "update", "--init", "--recursive", "--force", "--jobs=4")
        if whole_submodules:
            steps += [
                ("submodules", "git", "submodule", "--quiet", "deinit", "--force", "--all"),
                ("submodules", "rm", "-rf", "--", f"{WORKSPACE}/.git/modules"),
                update,
            ]
        else:
            steps.append((*update, "--depth=1"))
    return steps


_FETCH = ("--quiet", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")


def _init(sha: str, directory: str, *options: str) -> Step:
    object_format = ("--object-format=sha256",) if len(sha) == 64 else ()
    return ("init", "git", "init", "--quiet", *options, *object_format, "--", directory)


def _one_commit(chosen: Chosen) -> tuple[str, ...]:
    """The commit alone; a branch and a tag keep their names, for builds that ask git for their version."""
    target = ""
    if chosen.kind == "branch":
        target = f"refs/remotes/origin/{chosen.name}"
    elif chosen.kind == "tag":
        target = f"refs/tags/{chosen.name}"
    return ("--depth=1", "origin", f"+{chosen.fetch_object or chosen.sha}:{target}")


def _whole_history(ref: str) -> tuple[str, ...]:
    refspecs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    if ref.startswith("refs/") and not ref.startswith(("refs/heads/", "refs/tags/")):
        # As a pattern: no error when the ref is gone, and the commit may still be below another.
        refspecs.append(f"+{ref}*:refs/caisson/wanted*")
    return ("origin", *refspecs)


def search_steps(source: Source, short_sha: str) -> list[Step]:
    """Find the commit that a short SHA means: all history, commits only where the server can. Pure."""
    # Never lazily: a server that is not what it says it is would be asked for a missing object again and again.
    git = ("git", "--no-lazy-fetch", f"--git-dir={_SEARCH}")
    return [
        ("init", "rm", "-rf", "--", _SEARCH),
        _init("", _SEARCH, "--bare"),
        ("init", *git, "config", "remote.origin.url", str(source.url)),
        ("fetch", *git, "fetch", *_FETCH, "--filter=tree:0", *_whole_history("refs/pull/")),
        ("commit?", *git, "rev-parse", "--verify", "--end-of-options", f"{short_sha}^{{commit}}"),
        ("init", "rm", "-rf", "--", _SEARCH),
    ]


def report_steps(source: Source, context: str, dockerfile: str) -> list[Step]:
    """Check the context, and tell what was checked out. Pure."""
    steps: list[Step] = [
        ("context?", f"{LIBEXEC}/check-context", WORKSPACE, context or ".", dockerfile or "Dockerfile"),
        ("head?", "git", "log", "-1", "--format=%H %ct", "HEAD"),
        ("size?", "du", "--summarize", "--block-size=1", WORKSPACE),
    ]
    if source.lfs:
        steps.append(("lfs-files?", "git", "lfs", "ls-files", "--name-only"))
        # The files are in the work tree; a second copy would count to the workspace and to the build's context.
        steps.append(("lfs", "rm", "-rf", "--", f"{WORKSPACE}/.git/lfs/objects"))
    if source.submodules:
        steps.append(("submodules?", "git", "submodule", "status", "--recursive"))
    return steps


def parse_report(answers: Mapping[str, bytes], wanted: str) -> Cloned:
    """What ``report_steps`` told; raises ``RefNotFound`` when HEAD is not the ``wanted`` commit. Pure."""
    sha, _, seconds = answers.get("head", b"").decode("ascii", "replace").strip().partition(" ")
    if sha != wanted or not seconds.isdigit():
        raise RefNotFound(
            f"The checkout is at {sha[:64] or 'no commit'}, not at {wanted}.", hint="Start the build again."
        )
    size = re.match(rb"[0-9]+", answers.get("size", b""))
    # git-submodule(1): a sign, the commit, the path, and what describes it.
    submodules = re.findall(rb"^[ +U-]?[0-9a-f]{40,64} (.*?)(?: \([^()]*\))?$", answers.get("submodules", b""), re.M)
    return Cloned(
        sha=sha,
        commit_time=datetime.fromtimestamp(int(seconds), UTC),
        size_bytes=int(size[0]) if size else 0,
        submodules=tuple(path.decode("utf-8", "replace") for path in submodules),
        lfs_files=len(answers.get("lfs-files", b"").splitlines()),
    )


class _OnlyWhole(Exception):
    """A step failed since the server gives no single commits; ``meaning`` is the failure, should that be the end."""

    def __init__(self, step: str, meaning: CaissonError, *, certainly_absent: bool) -> None:
        super().__init__(step)
        self.step, self.meaning, self.certainly_absent = step, meaning, certainly_absent


@dataclass(frozen=True)
class _Steps:
    """Runs steps in one exec, with the source's environment; logs what they say, live, without the credentials."""

    engine: Engine
    container: ContainerID
    user: str
    source: Source
    log: Log
    context: str = ""
    dockerfile: str = ""

    def run(self, steps: Sequence[Step]) -> dict[str, bytes]:
        """The output of each step whose output is wanted, by name. Raises what the failure of a step means."""
        argv = [f"{LIBEXEC}/run-steps"]
        for step in steps:
            argv += [str(len(step)), *step]
        redactor = Redactor(self.source.env[name] for name in _SECRET_VARIABLES if name in self.source.env)
        output = StepsOutput()
        progress = ProgressLines(self.log)

        def on_output(stream: Stream, chunk: bytes) -> None:
            if stream == "stdout":
                output.add_answer(chunk)
            else:
                shown = redactor.feed(chunk)
                output.add_words(shown)
                progress.feed(shown)

        exit_code = self.engine.exec(
            self.container, argv, user=self.user, on_output=on_output, env=self.source.env, workdir=WORKSPACE
        )
        rest = redactor.flush()
        output.add_words(rest)
        progress.feed(rest)
        progress.close()
        if exit_code:
            raise self._failure(exit_code, output)
        return output.answers()

    def _failure(self, exit_code: int, output: StepsOutput) -> Exception:
        step, words = output.failed_step(), output.words()
        if step == "context":
            found = output.answers()["context"].decode("utf-8", "replace")
            return classify_context_failure(exit_code, found, context=self.context, dockerfile=self.dockerfile)
        url, known = self.source.url.display(), self.source.has_credentials
        meaning = classify_git_failure(step, exit_code, words, url=url, has_credentials=known)
        if is_refusal_of_one_commit(step, words):
            return _OnlyWhole(step, meaning, certainly_absent=is_certainly_absent(words))
        return meaning
