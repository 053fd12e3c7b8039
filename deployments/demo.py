"""``make demo``: a git repository becomes an image before one's eyes, the way that every build goes.

It starts Caisson where none runs, serves the sample repository to the builder (or takes the user's own), triggers its
build through the Prefect API, shows the log as it comes, and runs a container of the image. Caisson is left running.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from caisson.errors import CaissonError, EngineRefused, ServiceUnreachable
from caisson.request import BuildRequest
from caisson.settings import Settings, load_settings
from caisson.spec import make_spec, parse_request
from caisson.untrusted import clean_line
from deployments import cli_remote
from deployments.cli_report import Ended, summary_lines
from deployments.cli_view import make_view
from deployments.demo_engine import gateway, run_image
from deployments.git_daemon import make_repository, served
from deployments.launcher import RunningCaisson, find_running
from deployments.prefect_api import PrefectApi
from deployments.server import check_server
from deployments.state import StateDir

_SAMPLE = Path(__file__).parent / "sample"
_PROGRAM = Path(sys.executable).with_name("caisson")
_SAMPLE_IMAGE = "caisson-demo/greet"
_DEFAULT_NETWORK = "bridge"
_START_SECONDS = 120.0
_RUN_SECONDS = 10.0
_INTERRUPTED = 128 + 2


@dataclass(frozen=True)
class Wish:
    """Whose repository is to be built: the user's own, or the sample where ``url`` is empty."""

    url: str
    ref: str

    @classmethod
    def of_environment(cls) -> Wish:
        """From ``CAISSON_DEMO_REPO`` and ``CAISSON_DEMO_REF``."""
        return cls(os.environ.get("CAISSON_DEMO_REPO", ""), os.environ.get("CAISSON_DEMO_REF", ""))


def main() -> int:
    """Give the demonstration; returns the exit code for the shell."""
    try:
        return demonstrate(load_settings(), Wish.of_environment())
    except CaissonError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return _INTERRUPTED


def demonstrate(settings: Settings, wish: Wish) -> int:
    """The demonstration as its list of steps; returns the exit code for the shell."""
    with _repository(settings, wish) as (url, ref):
        request = parse_request({"repository_url": url, "ref": ref, "image": image_name(wish.url)})
        # Told before anything is started, and before a URL with a password in it gets into a database.
        make_spec(request, settings)
        running = ensure_running(settings)
        ended = build(request, settings)
    _say("")
    for line in summary_lines(ended):
        _say(line)
    if ended.failure is not None or ended.report is None:
        return _failed(ended)
    code = _run(ended.report.image_id, settings, own=bool(wish.url))
    _say("")
    for line in what_next(running):
        _say(line)
    return code


def ensure_running(settings: Settings) -> RunningCaisson:
    """The Caisson of this host, started in the background where none runs.

    Raises ``SettingsInvalid`` for a port that another program has, ``ServiceUnreachable`` when it does not start.
    """
    running = find_running(settings)
    if running is not None and running.ready:
        _say(f"Caisson runs: {running.url}")
        return running
    begun = time.monotonic()
    log = StateDir(settings.state_dir).create().logs / "up.log"
    process = None
    if running is None:
        check_server(settings)
        _say("Starting Caisson …")
        process = _start(log)
    try:
        running = _await_ready(settings, process, log)
    except BaseException:
        # What was not there before and is of no use yet is not left behind.
        if process is not None:
            process.terminate()
            process.wait()
        raise
    _say(f"Caisson is up after {time.monotonic() - begun:.1f} s: {running.url}")
    return running


def _start(log: Path) -> subprocess.Popen[bytes]:
    """``caisson up`` in a session of its own, so that it outlives this program and its terminal."""
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        return subprocess.Popen(
            [str(_PROGRAM), "up"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _await_ready(settings: Settings, process: subprocess.Popen[bytes] | None, log: Path) -> RunningCaisson:
    deadline = time.monotonic() + _START_SECONDS
    while (running := find_running(settings)) is None or not running.ready:
        if process is not None and (code := process.poll()) is not None:
            raise ServiceUnreachable(f"Caisson ended at once (exit code {code}): {_last_line(log)}", hint=f"See {log}.")
        if time.monotonic() > deadline:
            raise ServiceUnreachable(f"Caisson is not up after {_START_SECONDS:.0f} s.", hint=f"See {log}.")
        time.sleep(0.1)
    return running


@contextmanager
def _repository(settings: Settings, wish: Wish) -> Iterator[tuple[str, str]]:
    if wish.url:
        yield wish.url, wish.ref
        return
    repository = make_repository(_SAMPLE, settings.state_dir / "demo" / "greet.git")
    address = gateway(settings.docker_socket, settings.builder_network or _DEFAULT_NETWORK)
    with served(repository, address) as url:
        _say(f"The sample repository: {url}, {repository.tag} is commit {repository.sha[:12]}")
        yield url, wish.ref or repository.tag


def image_name(url: str) -> str:
    """The repository that the demonstration tags: named after the git repository, in a namespace of its own.

    >>> image_name(""), image_name("https://github.com/Team/My_App.git/"), image_name("git@host:!!!")
    ('caisson-demo/greet', 'caisson-demo/my-app', 'caisson-demo/app')
    """
    if not url:
        return _SAMPLE_IMAGE
    last = re.split(r"[/:]", url.rstrip("/"))[-1].lower().removesuffix(".git")
    return f"caisson-demo/{re.sub(r'[^a-z0-9]+', '-', last)[:100].strip('-') or 'app'}"


def build(request: BuildRequest, settings: Settings) -> Ended:
    """Trigger the build through the API and show it until it has ended; Ctrl-C cancels it."""
    with PrefectApi.of(settings) as api:
        asked = cli_remote.start(api, request, settings.host_name)
        with make_view(sys.stdout) as view:
            return cli_remote.watch(api, asked, settings, view)


def _failed(ended: Ended) -> int:
    if ended.failure is None:
        raise CaissonError("The build is done, but its report can't be had.", hint=f"See {ended.url}.")
    print(f"demo: {ended.failure['message']} {ended.failure['hint']}".rstrip(), file=sys.stderr)
    return ended.exit_code


def _run(image: str, settings: Settings, *, own: bool) -> int:
    """Run a container and show what it says; of the user's own image, an exit code is none of ours."""
    _say("")
    _say(f"A container of it (docker run --rm {image.removeprefix('sha256:')[:12]}) says:")
    try:
        ran = run_image(settings.docker_socket, image, seconds=_RUN_SECONDS)
    except EngineRefused as error:
        if not own:
            raise
        _say(f"  (it did not start: {error.message})")
        return 0
    for line in ran.output.splitlines():
        _say(f"  {clean_line(line)}")
    if ran.exit_code is None:
        _say(f"  (it was still running after {_RUN_SECONDS:.0f} s, and is removed)")
    elif ran.exit_code:
        _say(f"  (exit code {ran.exit_code})")
    return 0 if own else ran.exit_code or 0


def what_next(running: RunningCaisson) -> list[str]:
    """What a person may want to do now, with the program as it is called from here."""
    shown = _PROGRAM.relative_to(Path.cwd()) if _PROGRAM.is_relative_to(Path.cwd()) else _PROGRAM
    rows = [
        (running.url, "runs, logs and reports; Deployments → build-image → Run is the form"),
        (f"{shown} build URL --image NAME", "builds a repository of yours"),
        (f"{shown} down", "stops Caisson, which goes on running until then"),
    ]
    width = max(len(what) for what, _ in rows)
    return ["What next", *(f"  {what:<{width}}  {why}" for what, why in rows)]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return clean_line(lines[-1]) if lines else "it said nothing."


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
