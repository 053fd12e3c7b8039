"""What the engines' own builders make of tricky Dockerfiles, against what the check reads in them."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from caisson.guard.dockerfile import parse_dockerfile
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_stages import BuildInputs, Kind, resolve_stages
from caisson.guard.dockerfile_words import DockerfileError
from tests.conftest import EngineHost, ask_engine, find_engines

# Labels show what a builder made of lines, words and variables. No case is without a FROM: on such a file BuildKit 0.8
# and 0.13 fail with an index out of range, and the whole engine with them.
REFUSED = "refused"
Expected = dict[str, str] | str

CASES: dict[str, str] = {
    "comments in continuations": "FROM scratch\nLABEL a=1 \\\n# x\n\n  # y\n b=2 \\\n",
    "two escape characters do not continue": "FROM scratch\nLABEL a=1\\\\\nLABEL b=2",
    "three escape characters": "FROM scratch\nLABEL a=1\\\\\\\n b=2",
    "a backtick continues": '# escape=`\nFROM scratch\nLABEL a=c:\\d `\n b=`"x`"',
    "an escape that comes too late": "# x\n# escape=`\nFROM scratch\nLABEL a=1`\n",
    "an escape with blanks around": "  #  eScape =  ` \nFROM scratch\nLABEL a=1 `\n b=2",
    "windows line ends": "FROM scratch\r\nLABEL a=1 \\\r\n b=2\r\n",
    "a byte-order mark": "\ufeff# escape=`\nFROM scratch\nLABEL a=1 `\n b=2",
    "a byte-order mark in a word": 'FROM scratch\nLABEL a b\nLABEL c \ufeffd\nLABEL e="\ufefff"',
    "quotes": 'FROM scratch\nLABEL a=\'b $X\' "c d"="e\'f" g=h\\ i j="k\\"l\\m"',
    "the old form": "FROM scratch\nLABEL a  b  'c d' # e",
    "blanks of other kinds": "FROM scratch\nLABEL\ta=1\u00a0b=2\u2003c=3\x0bd=4\x1ce=5",
    "variables": "FROM scratch\nARG A=x\nENV B=$A C=${B}\nENV D=$B\nLABEL b=$B c=c$C d=$D e=\\$A f='$A' g=$ h=$1",
    "modifiers": "FROM scratch\nARG E=\nARG A=x\nLABEL a=${A:-y}1 b=${U:-$A} c=${A:+y} d=${U:+y}2 e=${E:-z} f=${A?}",
    "nested modifiers": "FROM scratch\nLABEL a=${A:-${B:-'}'}} b=${A:-\\}}",
    "an unset variable that is asked for": "FROM scratch\nLABEL a=${A:?no}",
    "an unknown modifier": "FROM scratch\nLABEL a=${A:^x}",
    "an open brace": "FROM scratch\nLABEL a=${A",
    "an open quote": "FROM scratch\nLABEL a='b",
    "an argument before FROM": "ARG A=scratch\nARG B=${A}\nFROM $B\nLABEL a=1$B\nARG B\nLABEL b=2$B",
    "an argument given": "ARG GIVEN=x\nFROM scratch\nARG GIVEN\nARG B=$GIVEN-o\nLABEL a=$GIVEN b=$B c=1$UNDECLARED",
    "an argument after a variable": "FROM scratch\nENV A=env\nARG A=arg\nLABEL a=$A",
    "a variable after an argument": "FROM scratch\nARG A=arg\nENV A=env\nLABEL a=$A",
    "a stage's arguments and variables": "FROM scratch AS p\nARG A=a\nENV B=b\nLABEL z=1\nFROM p\nLABEL z=2$A$B",
    "a stage's argument over its variable": "FROM scratch AS p\nENV A=env\nARG A=arg\nLABEL z=1\nFROM p\nLABEL z=$A",
    "a proxy": "FROM scratch\nLABEL a=1$http_proxy\nARG http_proxy\nLABEL b=2$http_proxy",
    "a platform": "FROM scratch\nLABEL a=1$TARGETARCH\nARG TARGETARCH\nLABEL b=2$TARGETARCH",
    "names of stages in any case": "from scratch as One\nLABEL a=1\nFrom one aS Two\nLABEL b=2\nFROM two\nLABEL c=3",
    "a heredoc that is none": "FROM scratch\nLABEL a=<<EOF\nLABEL b=2",
    "a heredoc": "FROM scratch\nCOPY <<LABEL /x\nLABEL a=1\nLABEL\nLABEL b=2",
    "a heredoc in quotes": "FROM scratch\nONBUILD RUN <<'LABEL c=3'\nLABEL a=1\nLABEL c=3\nLABEL b=2",
    "a heredoc with its tabs": "FROM scratch\nONBUILD RUN <<-'LABEL c=3'\n\tLABEL a=1\n\tLABEL c=3\nLABEL b=2",
    "a heredoc with blanks": "FROM scratch\nONBUILD RUN << 'LABEL c=3'\nLABEL a=1\nLABEL c=3\nLABEL b=2",
    "two heredocs": "FROM scratch\nONBUILD RUN <<'LABEL a=1' 3<<'LABEL b=2'\nLABEL a=1\nLABEL b=2\nLABEL c=3",
    "a heredoc in single quotes": "FROM scratch\nONBUILD RUN echo '<<EOF'\nLABEL a=1",
    "a heredoc behind an open quote": 'FROM scratch\nONBUILD RUN echo "<<EOF\nLABEL a=1',
    "a heredoc behind a list": 'FROM scratch\nONBUILD RUN ["a", "<<EOF"]\nLABEL a=1',
    "a heredoc without an end": "FROM scratch\nONBUILD RUN <<EOF\nLABEL a=1\n",
    "a shift": "FROM scratch\nONBUILD RUN echo $((1<<2)) $((1 << 2)) <<<EOF\nLABEL a=1\n",
    "a list as JSON": 'FROM scratch\nCOPY ["f\\u0069le", "/x y"]\nLABEL a=1',
    "flags in quotes": "FROM scratch\nCOPY --ch\\own='1:1' file /x\nLABEL a=1",
    "an end of flags": "FROM scratch\nCOPY -- file /x\nLABEL a=1",
    "an unknown flag": "FROM scratch\nCOPY --nothing=1 file /x",
    "a flag given twice": "FROM scratch\nCOPY --chown=1 --chown=2 file /x",
    "a copy by index": "FROM scratch\nCOPY file /x\nFROM scratch\nCOPY --from=0 /x /y\nLABEL a=1",
    "a copy by a name": "FROM scratch AS a-1_b\nCOPY file /\nFROM scratch\nCOPY --from=A-1_B file /\nLABEL a=1",
    "a copy from a variable": "FROM scratch AS a\nCOPY file /x\nFROM scratch\nARG A=a\nCOPY --from=$A /x /y",
    "a kelvin sign": "FROM scratch\nWOR\u212aDIR /\nLABEL a=1",
    "a dotless name": "FROM scratch AS 1a\nLABEL a=1",
    "an instruction of nobody": "FROM scratch\nLABLE a=1",
    "an instruction before FROM": "LABEL a=1\nFROM scratch",
    "a long line": f"FROM scratch\nLABEL a={'x' * 65_527}\nLABEL b=1",
    "too long a line": f"FROM scratch\nLABEL a={'x' * 65_528}\nLABEL b=1",
}
# What the check refuses although some builder reads it: versions read it in different ways.
REFUSED_HERE = {"a kelvin sign"}
# What a builder that knows no heredocs, or knows them only to refuse them, reads and then can't do.
NEEDS_HEREDOCS = {"a heredoc"}
BUILD_ARGS = (("GIVEN", "given"), ("UNDECLARED", "undeclared"), ("http_proxy", "http://proxy.example"))


def _read(text: str, dialect: Dialect, kind: Kind) -> Expected:
    """The labels of the last stage and of those that it goes on from."""
    try:
        stages = resolve_stages(parse_dockerfile(text, dialect), BuildInputs(kind, BUILD_ARGS, "linux/amd64"))
    except DockerfileError:
        return REFUSED
    labels: dict[str, str] = {}
    stage = stages[-1]
    chain = [stage]
    while stage.parent is not None:
        stage = stages[stage.parent]
        chain.append(stage)
    for each in reversed(chain):
        labels |= {str(key): str(value) for key, value in each.labels}
    return labels


Build = Callable[[str, Kind], Expected]


@pytest.fixture(scope="module")
def docker_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLI's configuration with the buildx in it that some engine's own host has."""
    [plugin, *_] = [
        found for host in find_engines() for found in host.root.glob("usr/lib*/docker/cli-plugins/docker-buildx")
    ]
    directory = tmp_path_factory.mktemp("docker")
    (directory / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(plugin.parent)]}))
    return directory


@pytest.fixture
def build(engine_host: EngineHost, docker_config: Path, tmp_path: Path) -> Iterator[Build]:
    (tmp_path / "file").write_text("content")
    tags: list[str] = []

    def run(*command: str, builder: str = "1") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "DOCKER_BUILDKIT": builder,
            "DOCKER_CONFIG": str(docker_config),
            "DOCKER_HOST": engine_host.docker_host,
        }
        return subprocess.run(
            ["docker", *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    def build(text: str, kind: Kind) -> Expected:
        tag = f"caisson-test/readers:{uuid.uuid4().hex}"
        (tmp_path / "Dockerfile").write_bytes(text.encode())
        args = [f"--build-arg={name}={value}" for name, value in BUILD_ARGS]
        done = run("build", "-q", "-t", tag, *args, ".", builder="0" if kind == "classic" else "1")
        if done.returncode:
            assert "Cannot connect" not in done.stderr
            assert "buildx component" not in done.stderr
            return REFUSED
        tags.append(tag)
        inspected = run("image", "inspect", "--format", "{{json .Config.Labels}}", tag)
        labels: dict[str, str] | None = json.loads(inspected.stdout)
        return labels or {}

    yield build
    for tag in tags:
        run("image", "rm", tag)


@pytest.mark.parametrize("kind", ["buildkit", "classic"])
@pytest.mark.parametrize("name", CASES)
def test_the_check_reads_what_the_builder_reads(engine_host: EngineHost, build: Build, name: str, kind: Kind) -> None:
    dialect = Dialect.of_engine(ask_engine(engine_host, "/version")["Version"])
    read, built = _read(CASES[name], dialect, kind), build(CASES[name], kind)
    if name in NEEDS_HEREDOCS and (kind == "classic" or dialect is Dialect.NO_HEREDOCS):
        assert built == REFUSED
    else:
        assert read == (REFUSED if name in REFUSED_HERE else built)
