"""Names that a Dockerfile chooses are asked of a resolver that may be slow, wrong, or the author's own."""

from __future__ import annotations

import threading
import time

from caisson.guard.dockerfile_names import Names, ask_host


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_hosts_own_resolver_is_asked() -> None:
    assert {"127.0.0.1", "::1"} & set(ask_host("localhost"))
    # A label that is too long, and a name that is none (RFC 6761).
    assert ask_host("a" * 64 + ".example") == ask_host("nothing.invalid") == ()


def test_an_answer_is_kept_for_a_minute() -> None:
    asked: list[str] = []
    clock = Clock()

    def ask(name: str) -> tuple[str, ...]:
        asked.append(name)
        return (f"10.0.0.{len(asked)}",)

    names = Names(ask=ask, clock=clock)
    assert [names("a.example"), names("a.example"), names("b.example")] == [("10.0.0.1",), ("10.0.0.1",), ("10.0.0.2",)]
    clock.now = 61
    assert names("a.example") == ("10.0.0.3",)


def test_names_that_do_not_answer_are_waited_for_once_all_together() -> None:
    forever = threading.Event()

    def ask(name: str) -> tuple[str, ...]:
        if name.startswith("slow"):
            forever.wait(30)
        return ("1.1.1.1",)

    names = Names(0.3, ask=ask)
    begun = time.monotonic()
    assert names("quick.example") == ("1.1.1.1",)
    assert [names(f"slow{number}.example") for number in range(50)] == [()] * 50
    assert names("late.example") == ()
    assert names("quick.example") == ("1.1.1.1",)
    assert time.monotonic() - begun < 3
    forever.set()
