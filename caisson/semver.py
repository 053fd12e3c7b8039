"""Semantic versions, by https://semver.org/spec/v2.0.0.html. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The expression that semver.org itself proposes, with the "v" that git tags usually have. Longer text is no version:
# a number of thousands of digits is an attack on whoever parses it.
_SEMVER = re.compile(
    r"v?(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?P<pre>(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+(?P<build>[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
_MAX_LENGTH = 256

Precedence = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


@dataclass(frozen=True)
class Version:
    """A version; compare two by their ``precedence``, which leaves build metadata out."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version that a git tag names; None when it names none.

        >>> str(Version.parse("v1.2.3-rc.1+linux")), Version.parse("1.2")
        ('1.2.3-rc.1+linux', None)
        """
        match = _SEMVER.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            return None
        pre, build = (tuple(match[part].split(".")) if match[part] else () for part in ("pre", "build"))
        return cls(int(match["major"]), int(match["minor"]), int(match["patch"]), pre, build)

    @property
    def is_prerelease(self) -> bool:
        return bool(self.pre)

    @property
    def precedence(self) -> Precedence:
        """A key to sort by (§11): a release comes after its pre-releases, a number before a word."""
        identifiers = tuple((False, int(part), "") if part.isdecimal() else (True, 0, part) for part in self.pre)
        return self.major, self.minor, self.patch, not self.pre, identifiers

    @property
    def tag(self) -> str:
        """The version as a tag of an image, whose grammar has no ``+``."""
        return str(self).replace("+", "-")

    def lines(self) -> tuple[str, ...]:
        """The lines that a release belongs to: ``1.2`` and ``1``. Below 1.0.0 there is no ``0``.

        Not ``0``, since "Major version zero (0.y.z) is for initial development. Anything MAY change at any time." (§4)

        >>> Version(1, 2, 3).lines(), Version(0, 2, 3).lines()
        (('1.2', '1'), ('0.2',))
        """
        minor = f"{self.major}.{self.minor}"
        return (minor, str(self.major)) if self.major else (minor,)

    def __str__(self) -> str:
        pre = f"-{'.'.join(self.pre)}" if self.pre else ""
        build = f"+{'.'.join(self.build)}" if self.build else ""
        return f"{self.major}.{self.minor}.{self.patch}{pre}{build}"
