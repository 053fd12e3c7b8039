"""The demonstration's parts that need no engine: its repository, git's server for it, and what it says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from caisson.errors import CaissonError, SettingsInvalid
from caisson.reference import parse_repository
from caisson.settings import Settings
from deployments.demo import ensure_running, image_name, what_next
from deployments.demo_engine import demultiplex
from deployments.git_daemon import Repository, make_repository, served
from deployments.state import RunningCaisson

SAMPLE = Path(__file__).parents[2] / "deployments" / "sample"


def _git(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture
def address() -> str:
    """A loopback address that no other run of these tests on this host uses: they all want git's own port."""
    return str(IPv4Address("127.1.0.0") + os.getpid())


@pytest.fixture
def sample(tmp_path: Path) -> Repository:
    return make_repository(SAMPLE, tmp_path / "served" / "greet.git")


def test_the_same_content_is_the_same_commit_on_every_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_repository(SAMPLE, tmp_path / "a.git")
    copy = tmp_path / "copy"
    shutil.copytree(SAMPLE, copy)
    for file in copy.iterdir():
        file.chmod(0o777)
        os.utime(file, (1, 1))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n name = Ada\n[core]\n autocrlf = true\n[commit]\n gpgsign = true\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert make_repository(copy, tmp_path / "b.git").sha == first.sha


def test_making_it_again_changes_nothing_and_new_content_moves_branch_and_tag(tmp_path: Path) -> None:
    content = tmp_path / "content"
    shutil.copytree(SAMPLE, content)
    first = make_repository(content, tmp_path / "a.git")
    assert make_repository(content, tmp_path / "a.git") == first
    (content / "greet").write_text("#!/bin/sh\necho else\n")
    second = make_repository(content, tmp_path / "a.git")
    assert second.sha != first.sha
    for ref in ("main", second.tag):
        assert _git("rev-parse", ref, cwd=second.path).stdout.strip() == second.sha
    assert _git("rev-list", "--count", "main", cwd=second.path).stdout.strip() == "1"


def test_content_without_a_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("one\n")
    with pytest.raises(CaissonError, match=r"VERSION holds 'one'"):
        make_repository(tmp_path, tmp_path / "a.git")


def test_a_host_without_git_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaissonError, match="apt-get install git"):
        make_repository(SAMPLE, tmp_path / "a.git")


def test_the_repository_is_served_to_a_clone_of_its_tag(sample: Repository, address: str, tmp_path: Path) -> None:
    with served(sample, address) as url:
        cloned = _git("clone", "--quiet", "--depth=1", "--branch", sample.tag, url, str(tmp_path / "clone"))
    assert cloned.returncode == 0, cloned.stderr
    assert _git("rev-parse", "HEAD", cwd=tmp_path / "clone").stdout.strip() == sample.sha
    assert (tmp_path / "clone" / "Dockerfile").read_bytes() == (SAMPLE / "Dockerfile").read_bytes()


def test_nothing_can_be_pushed_to_it(sample: Repository, address: str, tmp_path: Path) -> None:
    with served(sample, address) as url:
        pushed = _git("--git-dir", str(sample.path), "push", url, "main:refs/heads/other")
    assert pushed.returncode != 0
    assert _git("rev-parse", "--verify", "refs/heads/other", cwd=sample.path).returncode != 0


@pytest.mark.parametrize("path", ["/private.git", "/../private.git", "/greet.git/../private.git", "/"])
def test_no_repository_beside_it_is_served(sample: Repository, address: str, path: str) -> None:
    make_repository(SAMPLE, sample.path.parent / "private.git")
    make_repository(SAMPLE, sample.path.parent.parent / "private.git")
    with served(sample, address) as url:
        assert _git("ls-remote", url).returncode == 0
        assert _git("ls-remote", url.removesuffix("/greet.git") + path).returncode != 0


def test_the_server_is_gone_afterwards(sample: Repository, address: str) -> None:
    with served(sample, address) as url:
        port = urlsplit(url).port or 9418
        socket.create_connection((address, port)).close()
    deadline = time.monotonic() + 10
    while _answers(address, port):
        assert time.monotonic() < deadline


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_gits_own_port_is_taken_only_where_it_is_free(sample: Repository, address: str) -> None:
    with served(sample, address) as first, served(sample, address) as second:
        assert first == f"git://{address}/greet.git"
        assert re.fullmatch(rf"git://{re.escape(address)}:\d+/greet\.git", second)
        assert _git("ls-remote", second).returncode == 0


def test_an_address_of_another_host_is_refused_with_a_way_out(sample: Repository) -> None:
    with (
        pytest.raises(CaissonError, match=r"can't listen on 192\.0\.2\.1.*make demo REPO="),
        served(sample, "192.0.2.1"),
    ):
        pass


def test_a_port_that_another_program_has_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = Settings(state_dir=tmp_path / "state", server_port=port)
        with pytest.raises(SettingsInvalid, match=rf"127\.0\.0\.1:{port} is taken by another program"):
            ensure_running(settings)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://github.com/team/My_App.git",
        "git@host:a/b",
        "ssh://h/--x--",
        "git://h/ümläut",
        "https://h",
        "x" * 300,
    ],
)
def test_every_url_gives_a_repository_that_can_be_tagged(url: str) -> None:
    assert image_name(url).startswith("caisson-demo/")
    parse_repository(image_name(url))


def test_a_frame_that_is_cut_off_loses_no_text_before_it() -> None:
    assert demultiplex(b"\1\0\0\0\0\0\0\3abc\2\0\0\0\0\0\0\5de") == b"abcde"


def test_it_says_how_to_stop_what_it_leaves_running() -> None:
    lines = what_next(RunningCaisson(pid=1, url="http://127.0.0.1:4200", api_url="", ready=True))
    assert any("caisson down" in line for line in lines)
    assert any("http://127.0.0.1:4200" in line for line in lines)
