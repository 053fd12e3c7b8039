"""Credentials are in no argument, file, inspect output or log: on each engine, since each has its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from caisson.errors import CaissonError
from tests.conftest import EngineHost
from tests.engine.clone.workbench import TOKEN, Builder, MakeRepository, running_builder, with_submodule
from tests.engine.git_servers import GitHttp, git_http, git_ssh

# The environment of the first process, which is another user's, is what inspect tells.
_WHAT_RUNS = "for p in /proc/[0-9]*; do cat $p/cmdline; [ $p = /proc/1 ] || cat $p/environ; done"


@contextmanager
def _sampled_command_lines() -> Iterator[set[bytes]]:
    """Every command line on this host that is seen while the block runs."""
    seen: set[bytes] = set()
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(file.read_bytes())
                except OSError:
                    continue

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield seen
    finally:
        done.set()
        sampler.join()


def _watch_execs(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    api, ids = builder.engine._api, []
    create = api.exec_create

    def watched(*arguments: object, **options: object) -> dict[str, str]:
        answer = create(*arguments, **options)
        ids.append(answer["Id"])
        return answer

    monkeypatch.setattr(api, "exec_create", watched)
    return ids


@pytest.mark.parametrize("way", ["token", "key"])
def test_credentials_are_nowhere_to_be_found_after_a_clone(
    way: str,
    engine_host: EngineHost,
    root: Path,
    new: MakeRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outer = with_submodule(new, "../../{name}/.git")
    with (
        git_http(root, engine_host.gateway, {"oauth2": TOKEN}) as http,
        git_ssh(root, engine_host.gateway, tmp_path / "ssh") as ssh,
        running_builder(engine_host.docker_host, "caisson-test-clone-secrets") as builder,
    ):
        if way == "token":
            url, secret, canaries = f"{http.url}/private{outer.url}", TOKEN, [TOKEN, TOKEN[6:20]]
        else:
            url, secret, canaries = ssh.url(outer.url), ssh.key, ssh.key.split("\n")[1:-2]
        execs = _watch_execs(builder, monkeypatch)
        source = builder.source(url, secret, submodules=True)
        with _sampled_command_lines() as command_lines:
            builder.clone(source, builder.resolve(source))
        assert any(b"run-steps" in line for line in command_lines)
        assert len(execs) == 2
        api = builder.engine._api
        places = {
            "command lines": b"\n".join(command_lines),
            "inspect of the container": repr(api.inspect_container(builder.id)).encode(),
            "inspect of the execs": repr([api.exec_inspect(exec_id) for exec_id in execs]).encode(),
            "the container's own log": api.logs(builder.id),
            "the log": "\n".join(builder.lines).encode(),
            "the source as a text": repr(source).encode(),
            "the root file system": b"".join(api.export(builder.id)),
            # A tmpfs is not in an export.
            "the workspace and /tmp": builder.run("tar", "-cf", "-", "-C", "/", "app", "tmp").encode(),
            "what still runs": builder.run("sh", "-c", _WHAT_RUNS).encode(),
        }
    for place, content in places.items():
        for canary in canaries:
            assert canary.encode() not in content, place
    assert b"ssh-agent" not in places["what still runs"]


def test_a_server_that_repeats_the_token_does_not_bring_it_into_the_log(
    builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    token = "ghp-CANARY-0123456789"
    with pytest.raises(CaissonError) as caught:
        builder.get(f"{http.url}/status/404/{token}.git", secret=token)
    assert "***" in "\n".join(builder.lines)
    assert token not in f"{builder.lines} {caught.value.details}"
