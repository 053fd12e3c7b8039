"""Reading and judging Dockerfiles that nobody thought of. Each test's name is the sentence that it proves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from caisson.guard.dockerfile import Dockerfile, Instruction, parse_dockerfile
from caisson.guard.dockerfile_hosts import Resolver
from caisson.guard.dockerfile_lines import MAX_SIZE, Dialect
from caisson.guard.dockerfile_policy import DockerfilePolicy, Finding, check_dockerfile
from caisson.guard.dockerfile_stages import BuildInputs, Kind, resolve_stages
from caisson.guard.dockerfile_words import DockerfileError
from caisson.reference import parse_reference, parse_repository

dialects = st.sampled_from(Dialect)
kinds: st.SearchStrategy[Kind] = st.sampled_from(["buildkit", "classic"])

PIECES = [
    *(
        "FROM ",
        "from a AS b\n",
        "FROM scratch\n",
        "RUN ",
        "ADD ",
        "COPY ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "ONBUILD ",
        "SHELL ",
    ),
    *("--from=", "--mount=type=bind,from=", "--network=host ", "--chown=", "--", "<<EOF", "<<-'E F'", "EOF\n", "E F\n"),
    *("# escape=`\n", "# syntax=x/y:1\n", "# check=a\n", "#", "//", "#!", "\ufeff", "\\\n", "`\n", "\\", "`", "'", '"'),
    *(
        "$A",
        "${A",
        "${A:-",
        "${A:+",
        "${A#",
        "${A%%",
        "${A/",
        "}",
        "$",
        "=",
        "A=",
        "B ",
        '["',
        '", "',
        '"]',
        "{",
        "http://",
    ),
    *(
        "git@",
        "127.0.0.1",
        "[::1]",
        ":",
        "@",
        "/",
        ".git",
        "a",
        "b.c",
        " ",
        "\t",
        "\r",
        "\n",
        "\r\n",
        "\x00",
        "\u00a0",
        "ſ",
        "ü",
    ),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)

# Files that mostly parse, so that what is said of parsed files is said of many.
words = st.sampled_from(
    ["a", "$A", "${A:-b}", "'q r'", "x=1", "A=$B", "http://10.0.0.1/x", "team/other", "caisson.local/x"]
)
images = st.builds(
    "{}{}".format,
    st.sampled_from(
        ["x", "team/other", "10.0.0.9:5000/a", "10.0.0.9:5001/a", "registry.example/b", "unknown.example/c"]
    ),
    st.sampled_from(["", ":1", "@sha256:" + "a" * 64]),
)
lines = st.one_of(
    st.sampled_from(["ENV A=1", "ARG A", "ARG B=2", "RUN --network=host x", "RUN --security=insecure x", "USER a"]),
    st.builds("ADD {} /x".format, words),
    st.builds("COPY --from={} a /x".format, st.sampled_from(["a", "0", "team/other", "caisson.local/x", "beef"])),
    st.builds("COPY --from={} a /x".format, images),
    st.builds("RUN --mount=type=bind,from={} x".format, images),
    st.builds("FROM {}".format, images),
    st.builds("LABEL a={}".format, words),
    st.builds("FROM {} AS s".format, st.sampled_from(["a", "$A", "s", "caisson.local/x", "team/other", "beef"])),
    st.builds("RUN --device=a x".format),
    st.builds("RUN x \\\n  {}".format, words),
    st.sampled_from(["ONBUILD ADD $A /x", "ADD https://example.com/x /", "ADD http://mirror.corp/ /"]),
)
files = st.lists(lines, max_size=12).map(lambda body: "\n".join(["ARG A=b", "FROM scratch AS a", *body]) + "\n")

FOREIGN = ("team/other", "10.0.0.9:5000/a", "caisson.local/x")
# What may be allowed, entry by entry, and what a policy has to know of it.
ALLOWS: dict[str, tuple[object, ...]] = {
    "allowed_hosts": ("10.0.0.0/8", ".corp", "example.com"),
    "registries": ("10.0.0.9:5000", "registry.example"),
    "shared_repositories": tuple(map(parse_repository, FOREIGN)),
    "own_images": tuple(map(parse_reference, ("team/other:1", "team/other:latest", "10.0.0.9:5000/a:latest"))),
    "frontends": ("x/y:1", "x/y:2"),
    "base_images": ("x", "team/other", "10.0.0.9:5000/a", "registry.example/b"),
}
SWITCHES = ("host_network", "insecure", "devices", "unresolved", "unjudged_hosts")
ADDRESSES = {"example.com": ("1.1.1.1",), "registry.example": ("10.0.0.7",)}
STRICT = DockerfilePolicy(
    Dialect.HEREDOCS, "caisson.local", frozenset(map(parse_repository, FOREIGN)), follows_syntax=True
)


def allowing(policy: DockerfilePolicy, name: str, entries: Iterable[object]) -> DockerfilePolicy:
    kind = type(getattr(STRICT, name) or ())
    return replace(policy, **{name: kind(entries)})


@st.composite
def policies(draw: st.DrawFn) -> DockerfilePolicy:
    policy = replace(STRICT, dialect=draw(dialects), follows_syntax=draw(st.booleans()))
    policy = replace(policy, **{name: draw(st.booleans()) for name in SWITCHES})
    for name, entries in ALLOWS.items():
        if name != "base_images" or draw(st.booleans()):
            policy = allowing(policy, name, draw(st.lists(st.sampled_from(entries), unique=True)))
    return policy


@given(texts | st.binary(max_size=200), dialects, kinds, texts)
def test_any_text_is_read_or_refused_by_the_readers_own_error(
    source: str | bytes, dialect: Dialect, kind: Kind, value: str
) -> None:
    try:
        file = parse_dockerfile(source, dialect)
        assert file.stages
        resolve_stages(file, BuildInputs(kind, (("A", value),)))
    except DockerfileError:
        return


@given(texts, dialects, kinds)
def test_any_text_is_judged_or_refused(source: str, dialect: Dialect, kind: Kind) -> None:
    try:
        findings = check_dockerfile(source, DockerfilePolicy(dialect, "caisson.local"), BuildInputs(kind))
    except DockerfileError:
        return
    count = source.count("\n") + 1
    assert all(finding.rule and 0 <= finding.line <= count and finding.reason for finding in findings)


def _meaning(file: Dockerfile) -> object:
    def of(instruction: Instruction | None) -> object:
        if instruction is None:
            return None
        return (instruction.name, instruction.flags, instruction.args, instruction.pairs, of(instruction.trigger))

    return [(stage.name, of(stage.start), [of(each) for each in stage.instructions]) for stage in file.stages]


def _read(text: str, dialect: Dialect) -> object:
    try:
        return _meaning(parse_dockerfile(text, dialect))
    except DockerfileError:
        return None


@given(texts | files, dialects)
def test_comment_lines_at_the_end_change_nothing(text: str, dialect: Dialect) -> None:
    before = _read(text, dialect)
    assume(before is not None)
    assert _read(f"{text}\n# a comment\n  #\n\n", dialect) == before


@given(files, dialects)
def test_line_ends_of_windows_change_nothing(text: str, dialect: Dialect) -> None:
    assert _read(text.replace("\n", "\r\n"), dialect) == _read(text, dialect) is not None


@given(files, dialects)
def test_instructions_in_small_letters_are_the_same(text: str, dialect: Dialect) -> None:
    smaller = "\n".join(
        f"{first.lower()}{space}{rest}" for first, space, rest in (line.partition(" ") for line in text.split("\n"))
    )
    assert _read(smaller, dialect) == _read(text, dialect)


def _findings(text: str, policy: DockerfilePolicy, kind: Kind, resolve: Resolver | None = None) -> set[Finding]:
    try:
        return set(check_dockerfile(text, policy, BuildInputs(kind), resolve))
    except DockerfileError as error:
        return {Finding("invalid", error.line, error.reason)}


syntaxes = st.sampled_from(["", "# syntax=x/y:1\n"])
resolvers = st.sampled_from([None, lambda name: ADDRESSES.get(name, ())])


@given(syntaxes, files, policies(), kinds, resolvers, st.sampled_from([*ALLOWS, *SWITCHES]), st.data())
def test_one_more_thing_allowed_never_denies_more_and_one_less_never_allows_more(
    syntax: str,
    text: str,
    policy: DockerfilePolicy,
    kind: Kind,
    resolve: Resolver | None,
    name: str,
    data: st.DataObject,
) -> None:
    if name in SWITCHES:
        less, more = (replace(policy, **{name: value}) for value in (False, True))
    else:
        assume(getattr(policy, name) is not None)
        entry = data.draw(st.sampled_from(ALLOWS[name]))
        others = [each for each in getattr(policy, name) if each != entry]
        less, more = allowing(policy, name, others), allowing(policy, name, [*others, entry])
    denied, still_denied = (_findings(syntax + text, each, kind, resolve) for each in (less, more))
    if name == "frontends" and denied != still_denied:
        # The file was denied for its reader; how that one reads it is judged only once it may.
        assert "frontend-image" in {finding.rule for finding in denied}
    else:
        assert still_denied <= denied


MADE_POSSIBLE = {
    "allowed_hosts": "FROM scratch\nADD http://10.0.0.1/x /x\n",
    "registries": "FROM 10.0.0.9:5000/x\n",
    "shared_repositories": "FROM team/other:9\n",
    "own_images": "FROM team/other:1\n",
    "frontends": "# syntax=x/y:1\nFROM x\n",
    "base_images": "FROM x\n",
    "host_network": "FROM x\nRUN --network=host x\n",
    "insecure": "FROM x\nRUN --security=insecure x\n",
    "devices": "FROM x\nRUN --device=a x\n",
    "unresolved": "FROM x\nADD $A /x\n",
    "unjudged_hosts": "FROM unknown.example/a\n",
}


@pytest.mark.parametrize("name", [*ALLOWS, *SWITCHES])
def test_each_of_them_makes_something_possible(name: str) -> None:
    """Else that it denies no more would say nothing."""
    strict = replace(STRICT, base_images=()) if name == "base_images" else STRICT
    wider = replace(strict, **{name: True}) if name in SWITCHES else allowing(strict, name, ALLOWS[name])
    assert _findings(MADE_POSSIBLE[name], strict, "buildkit", lambda _: ())
    assert not _findings(MADE_POSSIBLE[name], wider, "buildkit", lambda _: ())


@given(files, policies(), kinds)
def test_what_is_denied_once_is_denied_in_a_longer_file(text: str, policy: DockerfilePolicy, kind: Kind) -> None:
    before = _findings(text, policy, kind)
    assume("invalid" not in {finding.rule for finding in before})
    assert before <= _findings(f"{text}FROM scratch\nRUN true\n", policy, kind)


LONG = {
    "continuations": "FROM a\nRUN x" + "\\\n#\n\\\n y" * 110_000,
    "escapes": "FROM a\n" + ("LABEL a=" + "\\" * 60_000 + "\n") * 17,
    "spaces in a directive": "# syntax=" + (" " * 60_000) + "x\nFROM a\n" + "#" * 900_000,
    "quotes": "FROM a\n" + ("LABEL a=" + "'\"'" * 20_000 + "\n") * 17,
    "heredocs": "FROM a\n" + "RUN <<E\nx\nE\n" * 80_000,
    "heredocs in a line": "FROM a\nCOPY " + "<<E " * 10_000 + "/x\n" + "E\n" * 10_000,
    "substitutions": "FROM a\nRUN <<E x" + "${A:-b}\\\n" * 110_000 + "\nE\n",
    "json": "FROM a\n" + ("RUN [" + '"a",' * 15_000 + "\n") * 17,
    "nested json": "FROM a\n" + ("RUN " + "[" * 60_000 + "\n") * 17,
    "flags": "FROM a\n" + ("RUN " + "--mount=a=b " * 5_000 + "x\n") * 17,
    "mounts": "FROM a\n" + ("RUN --mount=" + "from=a," * 8_000 + " x\n") * 17,
    "variables": "FROM a\n" + ("ENV A=" + "$B" * 30_000 + "\n") * 17,
    "copies": "FROM scratch\nENV A=" + "x" * 60_000 + "\n" + "ENV B=$A\n" * 100_000,
    "patterns": "FROM scratch\nENV A=" + "a" * 3_000 + "\nLABEL a=${A#" + "*a" * 1_000 + "b}\n",
    "stages": "FROM scratch AS a\nENV A=1\n" + "FROM a AS a\nENV B=2\n" * 999,
    "stages with variables": "FROM scratch AS a\n"
    + "".join(f"ENV A{n}=\n" for n in range(50_000))
    + "FROM a AS a\n" * 999,
    "onbuild": "FROM a\n" + "ONBUILD RUN x\n" * 70_000,
    "urls": "FROM a\n" + ("ADD http://" + "a." * 30_000 + "b/ /\n") * 16,
}


@pytest.mark.parametrize("name", LONG)
def test_the_longest_files_are_judged_in_seconds(name: str) -> None:
    text = LONG[name][:MAX_SIZE]
    policy = DockerfilePolicy(Dialect.SPACED_HEREDOCS, "caisson.local")
    start = time.process_time()
    with contextlib.suppress(DockerfileError):
        check_dockerfile(text, policy, BuildInputs("buildkit"))
    assert time.process_time() - start < 20


@pytest.mark.parametrize("name", ["heredocs", "onbuild", "continuations", "substitutions"])
def test_twice_the_text_takes_about_twice_the_time(name: str) -> None:
    def seconds(size: int) -> float:
        text = LONG[name][:size].rpartition("\n")[0] + "\nE\n" * (name == "heredocs")
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            with contextlib.suppress(DockerfileError):
                parse_dockerfile(text, Dialect.SPACED_HEREDOCS)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(4 << 16) < 10 * seconds(1 << 16) + 0.05
