"""A builder is gone at its deadline, whatever code in it does and though nobody acts from outside."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from caisson.build import read_socket
from caisson.engine import ContainerID, Engine
from caisson.errors import EngineLost
from caisson.plan import BuildIdentity, container_body
from caisson.settings import Settings
from caisson.spec import make_spec, parse_request

SECONDS = 6
# What removal costs an engine that other tests use at the same time.
SLACK_SECONDS = 12

_DAEMON = """
use POSIX ();
$SIG{$_} = 'IGNORE' for grep { !/^(KILL|STOP|CHLD|CLD|NUM\\d+)$/ } keys %SIG;
my %number = (x86_64 => [101, 302], aarch64 => [117, 261]);
my ($ptrace, $prlimit) = @{ $number{ (POSIX::uname())[4] } };
sub others { opendir my $proc, '/proc'; return grep { /^\\d+$/ && $_ != $$ } readdir $proc }
sub daemon { return if fork // die; POSIX::setsid(); fork && POSIX::_exit(0); work() }
"""
# Signals, ptrace's ATTACH and SEIZE, the limit of CPU time, memory, the OOM killer's choice and the slack of timers
# (whose file everybody may open, but not write), on all processes that are to be seen.
_TOUCH = (
    _DAEMON
    + """
sub put { open my $file, '+<', $_[0] or return 0; return syswrite $file, '999' }
sub touch {
    my ($pid) = @_;
    my %done;
    my $limit = pack 'Q2', 0, 0;
    $done{kill}    = kill KILL => $pid;
    $done{stop}    = kill STOP => $pid;
    $done{attach}  = syscall($ptrace, 16, $pid, 0, 0) == 0;
    $done{seize}   = syscall($ptrace, 0x4206, $pid, 0, 0) == 0;
    $done{prlimit} = syscall($prlimit, $pid, 0, $limit, 0) == 0;
    $done{$_}      = put("/proc/$pid/$_") for qw(mem oom_score_adj timerslack_ns);
    return join ' ', $pid, sort grep { $done{$_} } keys %done;
}
print touch($_), "\\n" for others();
sub work { while (1) { touch($_) for others() } }
daemon();
"""
)
# Orphans without end, each of which somebody has to reap, among spinning processes.
_FORK = (
    _DAEMON
    + """
sub work {
    fork for 1 .. 5;
    while (1) {
        my $child = fork // next;
        if   ($child) { wait }
        else          { fork; POSIX::_exit(0) }
    }
}
daemon();
"""
)
# All memory, in files that no killed process gives back and in processes.
_FILL = (
    _DAEMON
    + """
sub work {
    fork for 1 .. 4;
    my $number = 0;
    while (1) {
        for my $file ("/app/$$." . $number++, "/tmp/$$.$number") {
            open my $handle, '>', $file or next;
            syswrite $handle, 'x' x (1 << 20);
        }
        push @kept, 'y' x (4 << 20) if @kept < 100;
    }
}
daemon();
"""
)

_OTHERS = "print join q( ), grep { $_ ne qq(/proc/$$) } glob q(/proc/[0-9]*)"

StartBuilder = Callable[[], ContainerID]


@pytest.fixture
def start(engine: Engine, settings: Settings) -> Iterator[StartBuilder]:
    """Starts builders as a flow does, with a deadline ``SECONDS`` from now and nobody who watches over them."""
    started: list[ContainerID] = []

    def start() -> ContainerID:
        limits = {"memory": "96m", "workspace": "48m", "pids": 128}
        spec = make_spec(
            parse_request({"repository_url": "https://h.example/a.git", "image": "a", "limits": limits}), settings
        )
        now = datetime.now(UTC)
        identity = BuildIdentity(uuid.uuid4().hex[:12], "", "", settings.host_name, now + timedelta(seconds=SECONDS))
        body = container_body(spec, identity, read_socket(settings), settings, now=now)
        container = engine.create_container(identity.container_name, body)
        started.append(container)
        engine.start_container(container)
        return container

    yield start
    for container in started:
        engine.remove_container(container)


def _run(engine: Engine, settings: Settings, container: ContainerID, *argv: str) -> str:
    out: list[bytes] = []
    engine.exec(container, argv, user=settings.step_user, on_output=lambda _, chunk: out.append(chunk))
    return b"".join(out).decode(errors="replace")


def _await_gone(engine: Engine, container: ContainerID, begin: float) -> None:
    while engine.inspect_container(container) is not None:
        assert time.monotonic() - begin < SECONDS + SLACK_SECONDS, "the builder outlives its deadline"
        time.sleep(0.1)


def test_code_in_the_builder_can_not_touch_the_process_that_keeps_the_deadline(
    engine: Engine, settings: Settings, start: StartBuilder
) -> None:
    begin = time.monotonic()
    container = start()
    # Its first process and nothing else is there: each way to touch it is refused.
    assert _run(engine, settings, container, "perl", "-e", _TOUCH).splitlines() == ["1"]
    assert engine.inspect_container(container) is not None
    _await_gone(engine, container, begin)
    assert time.monotonic() - begin > SECONDS - 1


@pytest.mark.parametrize("attack", [_FORK, _FILL], ids=["processes", "memory"])
def test_a_builder_that_is_full_is_gone_at_its_deadline(
    engine: Engine, settings: Settings, start: StartBuilder, attack: str
) -> None:
    begin = time.monotonic()
    container = start()
    with suppress(EngineLost):
        _run(engine, settings, container, "perl", "-e", attack)
    _await_gone(engine, container, begin)


def test_a_step_has_the_sockets_group_and_no_privilege(engine: Engine, settings: Settings, start: StartBuilder) -> None:
    container = start()
    gid = read_socket(settings).gid
    for process, uid in (("self", settings.builder_uid), ("1", settings.keeper_uid)):
        text = _run(engine, settings, container, "cat", f"/proc/{process}/status")
        status = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
        assert status["Uid"] == status["Gid"] == [str(uid)] * 4
        assert set(status["Groups"]) - {str(uid)} == {str(gid)}
        assert {int(status[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])


def test_orphans_are_reaped(engine: Engine, settings: Settings, start: StartBuilder) -> None:
    container = start()
    _run(engine, settings, container, "perl", "-e", "for (1 .. 20) { next if fork; fork; exit } 1 while wait > 0")
    deadline = time.monotonic() + SECONDS / 2
    # The last to be orphaned may be about to end.
    while (seen := _run(engine, settings, container, "perl", "-e", _OTHERS)) != "/proc/1":
        assert time.monotonic() < deadline, seen
