"""What BuildKit's clients have named on one guarded socket: sessions, builds, and what was said of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex

from caisson.guard.llb import Steps
from caisson.guard.verdict import Denied

IDENTITY = re.compile("[0-9a-z]{16,64}")
_MOST_SESSIONS = 64
_MOST_BUILDS = 64
_MOST_RESULTS = 64


@dataclass
class BuildIds:
    """What the clients of one guarded socket have named: sessions that they opened, and builds (``Ref``).

    Both are random, 25 letters and digits, and whoever knows one can use it (BuildKit asks for no more). That they
    are few keeps a client from trying others' out.
    """

    sessions: set[str] = field(default_factory=set)
    builds: set[str] = field(default_factory=set)
    exports: dict[str, bool] = field(default_factory=dict)
    """By build, whether its result becomes an image, as its ``Solve`` said."""
    build_args: dict[str, str] | None = None
    """Those of the first build, and so of all: its Dockerfile is judged with them."""
    results: dict[tuple[str, str], Steps] = field(default_factory=dict)
    """By build and the reference that the engine gave it: what has to be done for it."""
    secret: str = field(default_factory=lambda: token_hex(16), repr=False)
    """What stands before this socket's session IDs on the engine."""

    def open_session(self, session: str) -> None:
        """A ``/session`` was opened under this ID; raises ``Denied`` for one that can't be one, or one too many."""
        self._add(self.sessions, session, "session", _MOST_SESSIONS)

    def on_engine(self, session: str) -> str:
        """The engine's ID of that session.

        A client chooses the ID, and BuildKit takes what an earlier session of the same one has sent for the same
        (``source/local``: the cache key is the session's ID and the files' names): also the Dockerfile, which would be
        used without having been sent again.
        """
        return f"{self.secret}{session}"

    def session_headers(self, session: str) -> tuple[tuple[str, str], ...]:
        """How ``/session`` is told the session.

        Whoever says the same shared key is taken to have files that another has sent, if he names their times and
        sizes: nobody has the same, not even an empty one.
        """
        return (
            ("X-Docker-Expose-Session-Uuid", self.on_engine(session)),
            ("X-Docker-Expose-Session-Sharedkey", self.on_engine(session)),
        )

    def name_build(self, build: str) -> None:
        """A call named this build; raises ``Denied`` likewise."""
        self._add(self.builds, build, "build", _MOST_BUILDS)

    def name_export(self, build: str, *, exports: bool) -> None:
        """A ``Solve`` said whether this build becomes an image; raises ``Denied`` when another said otherwise."""
        if self.exports.setdefault(build, exports) is not exports:
            raise Denied("build-exporter", "One build was asked for twice, with and without an image.")

    def may_export(self, build: str) -> bool:
        """Whether its result may become an image: what no ``Solve`` has named may be one of which one says so later."""
        return self.exports.get(build, True)

    def name_result(self, build: str, reference: str, steps: Steps) -> None:
        """The engine has answered with that; raises ``Denied`` where it has too often."""
        if len(self.results) >= _MOST_RESULTS:
            raise Denied("build-result", f"There were {_MOST_RESULTS} results, which are enough for one image.")
        self.results[build, reference] = steps

    def steps_of(self, build: str, reference: str) -> Steps:
        """What has to be done for a result; raises ``Denied`` for one that the engine has not told of here."""
        steps = self.results.get((build, reference))
        if steps is None:
            raise Denied(
                "build-result", "What has to be done for that result was not told by the engine on this socket."
            )
        return steps

    def fix_build_args(self, given: Mapping[str, str]) -> None:
        """A build has these arguments; raises ``Denied`` when another on this socket had others."""
        if self.build_args is None:
            self.build_args = dict(given)
        elif self.build_args != given:
            raise Denied("build-args", "One build has one set of arguments, and another was named on this socket.")

    def settle_build_args(self) -> dict[str, str]:
        """The arguments of all builds: none, if no build has named any until a Dockerfile is judged with them."""
        if self.build_args is None:
            self.build_args = {}
        return self.build_args

    @staticmethod
    def _add(known: set[str], name: str, what: str, most: int) -> None:
        if not IDENTITY.fullmatch(name):
            raise Denied(f"{what}-id", f"A {what}'s ID has to have 16 to 64 lower-case letters and digits.")
        if name not in known and len(known) >= most:
            raise Denied(f"{what}-id", f"There were {most} {what}s on this socket, which are enough for one image.")
        known.add(name)
