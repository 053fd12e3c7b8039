"""How Dockerfiles are read: one case for each rule of BuildKit's parser, and for each thing that is refused."""

from __future__ import annotations

import re

import pytest

from caisson.guard.dockerfile import MAX_STAGES, Dockerfile, Instruction, parse_dockerfile
from caisson.guard.dockerfile_lines import MAX_LINE, MAX_SIZE, Dialect, decode, find_syntax
from caisson.guard.dockerfile_stages import BuildInputs, Kind, ResolvedStage, resolve_stages
from caisson.guard.dockerfile_words import Budget, DockerfileError, Word, expand

HEREDOCS = Dialect.HEREDOCS
BUILDKIT, CLASSIC = BuildInputs("buildkit", platform="linux/amd64"), BuildInputs("classic", platform="linux/amd64")


def parse(text: str | bytes, dialect: Dialect = HEREDOCS) -> Dockerfile:
    return parse_dockerfile(text, dialect)


def instructions(text: str, dialect: Dialect = HEREDOCS) -> list[Instruction]:
    return list(parse(f"FROM scratch\n{text}", dialect).stages[0].instructions)


def one(text: str, dialect: Dialect = HEREDOCS) -> Instruction:
    [instruction] = instructions(text, dialect)
    return instruction


def resolve(text: str, inputs: BuildInputs = BUILDKIT, dialect: Dialect = HEREDOCS) -> tuple[ResolvedStage, ...]:
    return resolve_stages(parse(text, dialect), inputs)


def images(text: str, inputs: BuildInputs = BUILDKIT) -> list[str]:
    return [str(image.name) for stage in resolve(text, inputs) for image in stage.images]


def sources(text: str, inputs: BuildInputs = BUILDKIT) -> list[str]:
    return [str(source.name) for stage in resolve(text, inputs) for source in stage.sources]


def test_instructions_have_their_lines_and_names_in_capitals() -> None:
    [stage] = parse("\n# a comment\n  From scratch\nLabel a=1 \\\n  b=2\n\nrun true\n").stages
    assert (stage.start.line, stage.base) == (3, "scratch")
    assert [(i.name, i.line, i.end_line) for i in stage.instructions] == [("LABEL", 4, 5), ("RUN", 7, 7)]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("LABEL a=1 \\\n# a comment\n   # another\n\n b=2", [("a", "1"), ("b", "2")]),
        ("LABEL a=1 \\  \nb=2", [("a", "1"), ("b", "2")]),
        ("LABEL a=1\\\nb=2", [("a", "1b=2")]),
        ("LABEL a=1 \\\r\nb=2\r", [("a", "1"), ("b", "2")]),
        ("LABEL a=1\\\\", [("a", "1\\\\")]),
        ("LABEL a b c", [("a", "b c")]),
        ("LABEL a='b c' \"d\"=e\\ f", [("a", "'b c'"), ('"d"', "e\\ f")]),
        ('LABEL a="b \' \\" c" d=1', [("a", '"b \' \\" c"'), ("d", "1")]),
        ("LABEL a=''", [("a", "''")]),
        ("LABEL a=1 \\", [("a", "1")]),
    ],
)
def test_continuations_comments_and_quotes(text: str, pairs: list[tuple[str, str]]) -> None:
    assert one(text).pairs == tuple(pairs)


def test_the_escape_directive_changes_what_continues_a_line() -> None:
    [stage] = parse("# escape=`\nFROM scratch\nLABEL a=1 `\n  b=c:\\\n").stages
    assert stage.instructions[0].pairs == (("a", "1"), ("b", "c:\\"))


@pytest.mark.parametrize(
    ("text", "escape"),
    [
        ("# escape=`\nFROM a", "`"),
        ("  #\tESCAPE =  ` \r\nFROM a", "`"),
        ("\ufeff# escape=`\nFROM a", "`"),
        ("# syntax=x\n# escape=`\nFROM a", "`"),
        ("# escape=\\\nFROM a", "\\"),
        ("\n# escape=`\nFROM a", "\\"),
        ("# a comment\n# escape=`\nFROM a", "\\"),
        ("#!shebang\n# escape=`\nFROM a", "\\"),
        ("FROM a\n# escape=`", "\\"),
    ],
)
def test_where_an_escape_directive_counts(text: str, escape: str) -> None:
    assert parse(text).escape == escape


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("# syntax=a\nFROM b", "a"),
        ("#syntax = a  b \nFROM b", "a  b"),
        ("\ufeff#\u00a0SynTax=a\r\nFROM b", "a"),
        ("# escape=`\n# syntax=a\nFROM b", "a"),
        ("# other=1\n# syntax=a\nFROM b", "a"),
        ("# check=skip=all\n# syntax=a\nFROM b", "a"),
        ("#!/usr/bin/env x\n# syntax=a\nFROM b", "a"),
        ("// syntax=a\nFROM b", "a"),
        ("#!x\n//other=1\n//syntax=a\nFROM b", "a"),
        ("# a comment\n# syntax=a\nFROM b", None),
        ("\n# syntax=a\nFROM b", None),
        ("FROM b\n# syntax=a", None),
        ("# syntax\nFROM b", None),
    ],
)
def test_a_syntax_directive_is_found_wherever_some_version_finds_one(text: str, value: str | None) -> None:
    found = find_syntax(decode(text))
    assert (found.value if found else None) == value


@pytest.mark.parametrize(
    ("text", "flags", "args"),
    [
        ("COPY --from=a --chown=1:1 b c /d", (("from", "a"), ("chown", "1:1")), ("b", "c", "/d")),
        ("COPY --from='a' \"--link\" b /d", (("from", "a"),), ('"--link"', "b", "/d")),
        ("COPY --fr\\om=a b /d", (("from", "a"),), ("b", "/d")),
        ("COPY --link -- --from=a /d", (("link", ""),), ("--from=a", "/d")),
        ('COPY --from=a ["b c", "/d\\u0041"]', (("from", "a"),), ("b c", "/dA")),
        ("COPY \\\n  --from=a \\\n# x\n  b /d", (("from", "a"),), ("b", "/d")),
        ("RUN --mount=type=cache,target=/a --mount=type=ssh make", (("mount", "type=cache,target=/a"),), ("make",)),
        ("RUN --network=none make all", (("network", "none"),), ("make all",)),
        ("ARG --x=1 A=b", (), ("A=b",)),
    ],
)
def test_flags_and_arguments(text: str, flags: tuple[tuple[str, str], ...], args: tuple[str, ...]) -> None:
    instruction = one(text)
    assert instruction.flags[: len(flags)] == flags
    assert bool(flags) == bool(instruction.flags)
    assert instruction.args == args


@pytest.mark.parametrize(
    ("text", "heredocs", "after"),
    [
        ("RUN <<EOF\nFROM x\nEOF\nUSER a", ["EOF"], ["USER"]),
        ("RUN <<-EOF cat\n\tADD y\n\t\tEOF\nUSER a", ["EOF"], ["USER"]),
        ("RUN 3<<'E F' cat\nADD y\nE F\nUSER a", ["E F"], ["USER"]),
        ('COPY <<a <<"b" /d/\n1\na\n2\nb\nUSER a', ["a", "b"], ["USER"]),
        ("ADD <<a /d\n# kept\na\nUSER a", ["a"], ["USER"]),
        ("RUN cat <<EOF > /x && \\\n  echo\n1\nEOF\nUSER a", ["EOF"], ["USER"]),
        ("ONBUILD RUN <<EOF\nFROM x\nEOF\nUSER a", ["EOF"], ["USER"]),
        ("RUN <<EOF\r\nADD y\r\nEOF\r\nUSER a", ["EOF"], ["USER"]),
        ("RUN echo $((1<<2))\nUSER a", [], ["USER"]),
        ("RUN cat << EOF\nUSER a", [], ["USER"]),
        ("RUN cat <<<EOF\nUSER a", [], ["USER"]),
        ("RUN echo '<<EOF'\nUSER a", [], ["USER"]),
        ('RUN echo "<<EOF\nUSER a', [], ["USER"]),
        ('RUN ["a", "<<EOF"]\nUSER a', [], ["USER"]),
        ("CMD cat <<EOF\nUSER a", [], ["USER"]),
        ("LABEL a=<<EOF\nUSER a", [], ["USER"]),
    ],
)
def test_heredocs(text: str, heredocs: list[str], after: list[str]) -> None:
    first, *rest = instructions(text)
    assert list(first.heredocs) == heredocs
    assert [instruction.name for instruction in rest] == after


def test_blanks_in_a_heredoc_are_for_the_newest_alone() -> None:
    text = "RUN cat << EOF\nUSER a\nEOF\n"
    assert one(text, Dialect.SPACED_HEREDOCS).heredocs == ("EOF",)
    with pytest.raises(DockerfileError, match="line 4: 'EOF' is no instruction"):
        instructions(text)


def test_before_heredocs_their_lines_are_instructions() -> None:
    names = [i.name for i in instructions("RUN <<RUN\nADD http://a /b\nRUN\n", Dialect.NO_HEREDOCS)]
    assert names == ["RUN", "ADD", "RUN"]


def test_stages_are_named_in_any_case_and_numbered() -> None:
    text = "FROM a AS One\nFROM one\nFROM scratch as two\nCOPY --from=ONE x /\nCOPY --from=0 x /\nFROM TWO\n"
    stages = resolve(text)
    assert [(stage.index, stage.name, stage.parent) for stage in stages] == [
        (0, "one", None),
        (1, "", 0),
        (2, "two", None),
        (3, "", 2),
    ]
    assert images(text) == ["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nCOPY --from=b x /", ["a", "b"]),
        ("FROM scratch\nCOPY --from=later x /\nFROM scratch AS later", ["later"]),
        ("FROM scratch AS self\nCOPY --from=self x /", ["self"]),
        ("FROM scratch\nRUN --mount=from=b,target=/b --mount=type=cache,target=/c true", ["b"]),
        ("FROM scratch\nRUN --mount=FROM=b,from=c,target=/b true", ["c"]),
        ("FROM scratch AS b\nFROM scratch\nRUN --mount=from=b,target=/b true", []),
        ("FROM scratch\nRUN --mount=from=0,target=/b true", ["0"]),
        ("FROM scratch\nCOPY --from=99999999999999999999 x /", ["99999999999999999999"]),
        ("FROM scratch\nONBUILD COPY --from=b x /", ["b"]),
        ("FROM scratch\nCOPY --from=scratch x /", []),
    ],
)
def test_which_images_are_read(text: str, expected: list[str]) -> None:
    assert images(text) == expected


@pytest.mark.parametrize(
    ("before", "base", "build_args", "buildkit", "classic"),
    [
        ("ARG A=debian", "$A", {}, "debian", "debian"),
        ("ARG A=debian", "${A}:1", {"A": "alpine"}, "alpine:1", "alpine:1"),
        ("ARG A=debian\nARG B=${A}:x", '"$B"', {}, "debian:x", "debian:x"),
        ("ARG A B=b", "a${A}$B", {}, "ab", "ab"),
        ("ARG A=1\nARG A", "a$A", {}, "a1", "a"),
        ("", "a$UNDECLARED", {"UNDECLARED": "x"}, "a", "a"),
        ("", "a$HTTP_PROXY", {"HTTP_PROXY": "x"}, "a", "ax"),
        ("", "a-$TARGETARCH-$BUILDOS", {}, "a-amd64-linux", "a--"),
        ("", "a-$TARGETARCH", {"TARGETARCH": "x"}, "a-x", "a-"),
        ("", "a-$TARGETSTAGE", {}, "a-…", "a-"),
        ("ARG A", "${A:-x}${A:+y}${A-z}", {}, "xz", "xz"),
        ("ARG A=", "a${A:-x}${A-z}", {}, "ax", "ax"),
        ("ARG A=v1.2.3", "a:${A#v}${A%.*}${A%%.*}${A##*.}", {}, "a:1.2.3v1.2v13", "a:1.2.3v1.2v13"),
        ("ARG A=v1", "a${A/v/w}", {}, "a…", "a…"),
        ("ARG A=b", "a\\$A'$A'", {}, "a$A$A", "a$A$A"),
    ],
)
def test_variables_in_from(before: str, base: str, build_args: dict[str, str], buildkit: str, classic: str) -> None:
    kinds: tuple[tuple[Kind, str], ...] = (("buildkit", buildkit), ("classic", classic))
    for kind, expected in kinds:
        inputs = BuildInputs(kind, tuple(build_args.items()), "linux/amd64")
        [stage] = resolve(f"{before}\nFROM {base}", inputs)
        assert str(stage.base) == expected


@pytest.mark.parametrize(
    ("text", "build_args", "buildkit", "classic"),
    [
        ("FROM scratch\nENV A=x\nADD $A /", {}, ["x"], ["x"]),
        ("FROM scratch\nENV A=x B=$A\nADD a$B /", {}, ["a"], ["a"]),
        ("FROM scratch\nARG A=x\nADD $A /", {"A": "y"}, ["y"], ["y"]),
        ("ARG A=x\nFROM scratch\nADD a$A /", {}, ["a"], ["a"]),
        ("ARG A=x\nFROM scratch\nARG A\nADD a$A /", {}, ["ax"], ["ax"]),
        ("FROM scratch\nENV A=x\nARG A=y\nADD $A /", {}, ["y"], ["x"]),
        ("FROM scratch\nARG A=y\nENV A=x\nADD $A /", {}, ["x"], ["x"]),
        ("FROM scratch AS p\nARG A=y\nENV B=z\nFROM p\nADD a$A$B /", {}, ["ayz"], ["az"]),
        ("FROM b\nADD $A /", {}, ["…"], ["…"]),
        ("FROM b\nADD ${A:-x} /", {}, ["…"], ["…"]),
        ("FROM b\nARG A=x\nADD $A /", {}, ["x"], ["…"]),
        ("FROM b\nENV A=x\nADD $A /", {}, ["x"], ["x"]),
        ("FROM scratch\nARG HTTP_PROXY\nADD a$HTTP_PROXY /", {"HTTP_PROXY": "p"}, ["ap"], ["ap"]),
        ("FROM scratch\nADD a$https_proxy /", {"https_proxy": "p"}, ["a"], ["ap"]),
        ("FROM scratch\nARG TARGETARCH\nADD a$TARGETARCH /", {}, ["aamd64"], ["a"]),
        ("FROM scratch\nADD <<A http://h/$X /\nA", {}, ["http://h/"], ["http://h/"]),
        ('FROM scratch\nADD ["a b", "$X", "/"]', {}, ["a b", ""], ["a b", ""]),
        ("FROM scratch\nADD \\ufeffa /", {}, ["ufeffa"], ["ufeffa"]),
        ("FROM scratch\nADD \ufeffhttp://h /", {}, ["http://h"], ["http://h"]),
        ("FROM scratch\nONBUILD ADD a$X /", {}, ["a…"], ["a…"]),
        ("FROM scratch AS p\nONBUILD ENV X=y\nFROM p\nADD a$X /", {}, ["a…"], ["a…"]),
        ("FROM scratch\nADD $PATH /", {}, ["…"], ["…"]),
    ],
)
def test_variables_in_add(text: str, build_args: dict[str, str], buildkit: list[str], classic: list[str]) -> None:
    inputs = tuple(build_args.items())
    assert sources(text, BuildInputs("buildkit", inputs, "linux/amd64")) == buildkit
    assert sources(text, BuildInputs("classic", inputs, "linux/amd64")) == classic


def test_onbuild_is_read_as_a_later_build_reads_it() -> None:
    [stage] = parse("# escape=`\nFROM scratch\nONBUILD COPY --from=a x `\n /\n").stages
    trigger = stage.instructions[0].trigger
    assert trigger is not None
    assert (trigger.name, trigger.line, trigger.flag("from")) == ("COPY", 3, "a")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a'$A'b", "a$Ab"),
        ('"$A"', "x"),
        ('"a\\"\\$\\\\\\n"', 'a"$\\\\n'),
        ("\\$A\\ ", "$A "),
        ("$", "$"),
        ("$.", "$."),
        ("$1$@", ""),
        ("${A}", "x"),
        ("${E:-a${A}b}", "axb"),
        ("${A:+'}'}", "}"),
        ("${A?no}", "x"),
        ("a<<b", "a<<b"),
        ("${U:-}", "…"),
        ("${U+a}", "…"),
        ("${P:+a}", "a"),
        ("${P#x}", "…"),
        ("trailing\\", "trailing"),
    ],
)
def test_words(word: str, expected: str) -> None:
    values = {"A": Word.of("x"), "E": Word.of(""), "U": Word.of(None), "P": Word.of("x", None)}
    assert str(expand(word, "\\", values.get, Budget())) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no FROM"),
        ("# only a comment\n", "no FROM"),
        ("ARG A=1\n", "no FROM"),
        ("RUN x\nFROM a\n", "line 1: RUN stands before the first FROM"),
        ("FROM a\nFOO b\n", "line 2: 'FOO' is no instruction"),
        ("FROM\u00a0a\n", "outside ASCII"),
        ("FROM a\nWOR\u212aDIR /\n", "outside ASCII"),
        ("FROM a b\n", "FROM takes an image"),
        ("FROM a a\u017f b\n", "FROM takes an image"),
        ("FROM a as 1b\n", "can't be the name of a stage"),
        ("FROM a as \u212ab\n", "can't be the name of a stage"),
        ("FROM --platform a\n", "has no value"),
        ("FROM --x=1 a\n", "FROM has no flag '--x'"),
        ("FROM a\nCOPY --from=a --from=b c /\n", "twice"),
        ("FROM a\nCOPY --link=maybe c /\n", "true or false"),
        ("FROM a\nCOPY --from=\u00e0 c /\n", "outside ASCII"),
        ("FROM a\nCOPY --from=\\\u00e0 c /\n", "outside ASCII"),
        ("# escape=`\nFROM a\nCOPY --from=a`b c /\n", "escape character"),
        ("FROM a\nCOPY a\n", "too few"),
        ("FROM a\nENV\n", "too few"),
        ("FROM a\nENV a\n", "needs a name and a value"),
        ("FROM a\nENV a=1 b\n", "where name=value is needed"),
        ("FROM a\nENV =1\n", "without a name"),
        ('FROM a\nARG "A"=1\n', "ARG has the name"),
        ("FROM a\nSHELL sh\n", "JSON list"),
        ("FROM a\nHEALTHCHECK MAYBE x\n", "NONE, or CMD"),
        ('FROM a\nCOPY [1, "b"]\n', "something else than strings"),
        ('FROM a\nADD ["b", "c"] d\n', "follows a JSON list"),
        ('FROM a\nRUN ["b"] <<EOF\nEOF\n', "heredoc follows a JSON list"),
        ("FROM a\nRUN <<EOF\nx\n", "line 2: the heredoc 'EOF' has no end"),
        ("FROM a\nRUN <<EOF${X:-b}\nEOF\n", "in different ways"),
        ("FROM a\nRUN <<EOF ${X%b}\nEOF\n", "older builders don't know"),
        ("FROM a\nONBUILD ONBUILD RUN x\n", "can't hold ONBUILD"),
        ("FROM a\nONBUILD FROM x\n", "can't hold FROM"),
        ("FROM a\nONBUILD # x\n", "one instruction"),
        ("FROM a\nONBUILD -- RUN x\n", "no instruction"),
        ("# escape=x\nFROM a\n", "backslash or a backtick"),
        ("# escape=`\n# escape=`\nFROM a\n", "given twice"),
        ("# check=skip=all\n# escape=`\nFROM a\n", "disagree"),
        ("#\u00a0escape=`\nFROM a\n", "disagree"),
        ('{"syntax": "a"}\n', "no instruction"),
        ("FROM a \\\r\r\n", "two carriage returns"),
        ("FROM a\nRUN a\x00b\n", "NUL"),
        (b"FROM a\nLABEL a=\xe4\n", "UTF-8"),
        ("FROM a\nLABEL a=\ud800\n", "UTF-8"),
        (f"FROM a\nRUN {'x' * (MAX_LINE - 3)}\n", f"line 2: it has more than {MAX_LINE} bytes"),
        (f"FROM a\nRUN {'ü' * (MAX_LINE // 2)}\n", f"line 2: it has more than {MAX_LINE} bytes"),
        ("#" * (MAX_SIZE + 1), f"{MAX_SIZE} at most"),
        ("FROM a\n" * (MAX_STAGES + 1), f"{MAX_STAGES} at most"),
    ],
)
def test_what_is_no_dockerfile(text: str | bytes, reason: str) -> None:
    with pytest.raises(DockerfileError, match=re.escape(reason)) as caught:
        parse(text)
    assert caught.value.rule == "dockerfile-unreadable"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM $A\n", "names nothing"),
        ("FROM ${A:-\n", "has no '}'"),
        ("FROM ${A\n", "is no substitution"),
        ("FROM ${A:}\n", "is no substitution"),
        ("FROM ${A^}\n", "is no substitution"),
        ("FROM ${}\n", "has no name"),
        ("FROM ${A?}\n", "line 1: the variable A has no value"),
        ("FROM 'a\n", "single quote"),
        ('FROM "a\n', "double quote"),
        ("FROM $\u00fc\n", "other letters"),
        ("FROM " + "${A:-" * 40 + "}" * 40 + "\n", "nested more than"),
        ("ARG A=b\nFROM ${A#\\b}\n", "backslash before"),
        ("FROM scratch\nENV X=$U\nENV $X=1\nCOPY --from=$X a /\n", "takes no variables"),
        ("FROM b\nENV $X=1\n", "line 2: ENV sets a variable whose name can't be known"),
        ("FROM b\nRUN --mount=from=$X,target=/x a\n", "takes no variables"),
        ('FROM b\nRUN --mount=\\"from=x\\",target=/x a\n', "quotes in it"),
        ("FROM scratch\nENV A=xxxxxxxx\n" + "ENV A=$A$A\n" * 40, "expand to more text"),
    ],
)
def test_what_no_build_gets_through(text: str, reason: str) -> None:
    file = parse(text)
    with pytest.raises(DockerfileError, match=re.escape(reason)) as caught:
        resolve_stages(file, BUILDKIT)
    assert caught.value.line > 0


def test_a_line_as_long_as_a_builder_takes_is_read() -> None:
    assert one(f"RUN {'x' * (MAX_LINE - 4)}").name == "RUN"


@pytest.mark.parametrize("version", ["", "latest", "20", "99999.1", "v20.10"])
def test_what_is_no_engine_version(version: str) -> None:
    with pytest.raises(ValueError, match="not the version of an engine"):
        Dialect.of_engine(version)
