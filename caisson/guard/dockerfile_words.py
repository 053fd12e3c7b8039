"""Words of a Dockerfile: quotes, escapes and ``$variables``, by the rules of BuildKit's shell lexer. Pure.

Source: moby/buildkit frontend/dockerfile/shell/lex.go, v0.8 (Docker 20.10) to v0.32. What a builder would put in the
place of a variable is not always known here, as the base image's environment can hold anything: such a part of a word
is ``None``, and nothing that is unknown is ever taken for something known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from caisson.guard.dockerfile_globs import BYTE_ORDER_MARK, trim
from caisson.guard.verdict import Denied

# unicode.IsSpace of Go. Python's own idea of a space has \x1c to \x1f in it too.
GO_SPACES = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

_SPECIAL_PARAMETERS = "@*#?-$!0"
# The oldest lexer knows ${x:-y}, ${x:+y}, ${x:?y} and ${x?y}; what else is in use came between 0.11 and 0.13.
_NEWER_MODIFIERS = frozenset("+-#%/")
# Nobody nests ${a:-${b:-…}} deeper, and a recursion without a bound is a way to end this process.
_MAX_DEPTH = 32


class DockerfileError(Denied):
    """A Dockerfile that no builder would take, or that two of them would take for different things.

    ``line`` is its first line, from 1; 0 for the file as a whole.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__("dockerfile-unreadable", reason)
        self.line = line

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else self.reason


@dataclass
class Budget:
    """How many characters may still come out of variables: doubling one 40 times needs 200 bytes of Dockerfile."""

    left: int = 8 << 20

    def spend(self, characters: int) -> None:
        """Raises ``DockerfileError`` when nothing is left."""
        self.left -= characters
        if self.left < 0:
            raise DockerfileError("its variables expand to more text than is followed here; use fewer or shorter ones")


@dataclass(frozen=True)
class Word:
    """A word after expansion; a part that can't be known before the build is ``None``.

    >>> Word.of("a", "b", None).parts, Word.of("a").text, Word.of(None).text
    (('ab', None), 'a', None)
    """

    parts: tuple[str | None, ...] = ()

    @classmethod
    def of(cls, *parts: str | None) -> Word:
        return cls.joined(parts)

    @classmethod
    def joined(cls, parts: Iterable[str | None]) -> Word:
        merged: list[str | None] = []
        known: list[str] = []
        for part in parts:
            if part is not None:
                known.append(part)
                continue
            if text := "".join(known):
                merged.append(text)
            known.clear()
            if not merged or merged[-1] is not None:
                merged.append(None)
        if text := "".join(known):
            merged.append(text)
        return cls(tuple(merged))

    @property
    def text(self) -> str | None:
        """The whole word, if all of it is known."""
        if None in self.parts:
            return None
        return self.parts[0] or "" if self.parts else ""

    @property
    def start(self) -> str:
        """What is known of its beginning."""
        return self.parts[0] or "" if self.parts else ""

    @property
    def empty(self) -> bool | None:
        """Whether it is empty; ``None`` if that is not known."""
        if any(self.parts):
            return False
        return None if self.parts else True

    def __str__(self) -> str:
        return "".join("…" if part is None else part for part in self.parts)


UNKNOWN = Word.of(None)
Lookup = Callable[[str], Word | None]


def expand(text: str, escape: str, lookup: Lookup, budget: Budget) -> Word:
    """One word with its quotes and escapes removed and its variables replaced (``Lex.ProcessWord``).

    ``lookup`` gives ``None`` for a variable that is not set. Raises ``DockerfileError``.

    >>> values = {"A": Word.of("x.tar.gz")}
    >>> expand("'$A' ${A%%.*} ${B:-none}", "\\\\", values.get, Budget()).text
    '$A x none'
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    budget.spend(len(text))
    if "$" not in text and "'" not in text and '"' not in text and escape not in text:
        return Word.of(text)
    word = Word.joined(_Lexer(text, escape, lookup, budget).until(""))
    budget.spend(sum(len(part or "") for part in word.parts))
    return word


def split_words(text: str, *, raw: bool, spaced: bool) -> tuple[list[str], bool]:
    """The words of a line in which no variable is set, as heredocs are looked for (``Lex.ProcessWords``).

    ``raw`` keeps quotes and escapes; ``spaced`` lets blanks stand between ``<<`` and what follows (BuildKit 0.22).
    The second value says whether a modifier was used that the oldest BuildKit with heredocs does not know.
    Raises ``DockerfileError``.
    """
    lexer = _Lexer(
        text.removeprefix(BYTE_ORDER_MARK), "\\", lambda _: None, Budget(), raw=raw, keep=True, spaced=spaced
    )
    lexer.until("", raw_escapes=raw)
    return lexer.words.done(), lexer.newer


@dataclass
class _Words:
    found: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    arrows: bool = False
    """Whether there is a ``<<`` in the current word."""

    def add(self, text: str) -> None:
        for character in text:
            if character not in GO_SPACES:
                self.current.append(character)
            elif self.current:
                self.flush()

    def add_raw(self, text: str) -> None:
        if text:
            before = self.current[-1][-1] if self.current else ""
            self.arrows |= "<<" in before + text
            self.current.append(text)

    def flush(self) -> None:
        self.found.append("".join(self.current))
        self.current.clear()
        self.arrows = False

    def done(self) -> list[str]:
        if self.current:
            self.flush()
        return self.found


class _Lexer:
    """One pass over one word, or over one line when ``words`` matter."""

    def __init__(
        self,
        text: str,
        escape: str,
        lookup: Lookup,
        budget: Budget,
        *,
        raw: bool = False,
        keep: bool = False,
        spaced: bool = False,
    ) -> None:
        self._text, self._escape, self._lookup, self._budget = text, escape, lookup, budget
        self._raw, self._keep, self._spaced = raw, keep, spaced
        self._at = 0
        self._depth = 0
        self.words = _Words()
        self.newer = False

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def until(self, stop: str, raw_escapes: bool = False) -> list[str | None]:
        """What comes before ``stop`` (empty: the end), expanded; ``stop`` itself is consumed."""
        outer = self._depth == 0
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise DockerfileError(f"variables are nested more than {_MAX_DEPTH} deep")
        result: list[str | None] = []
        while character := self._peek():
            if character == stop:
                self._at += 1
                self._depth -= 1
                return result
            pieces, splits = self._piece(character, raw_escapes)
            result += pieces
            if outer:
                text = "".join(piece or "" for piece in pieces)
                (self.words.add if splits else self.words.add_raw)(text)
        if stop:
            raise DockerfileError(f"a substitution has no {stop!r} at its end")
        self._depth -= 1
        return result

    def _piece(self, character: str, raw_escapes: bool) -> tuple[list[str | None], bool]:
        """The next piece, and whether blanks in it end a word."""
        if character == "'":
            return [self._single_quoted()], False
        if character == '"':
            return self._double_quoted(raw_escapes), False
        if character == "$":
            return self._dollar(), True
        if character == "<":
            return [self._possible_heredoc()], False
        self._at += 1
        if character != self._escape:
            return [character], True
        escaped = self._next()
        return [(self._escape if raw_escapes else "") + escaped], False

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise DockerfileError("a single quote is not closed")
        quoted = self._text[self._at : end + 1]
        self._at = end + 1
        return quoted if self._raw else quoted[1:-1]

    def _double_quoted(self, raw_escapes: bool) -> list[str | None]:
        self._at += 1
        result: list[str | None] = ['"'] if self._raw else []
        while character := self._peek():
            if character == '"':
                self._at += 1
                return [*result, '"'] if self._raw else result
            if character == "$":
                result += self._dollar()
                continue
            self._at += 1
            if character == self._escape:
                if raw_escapes:
                    result.append(character)
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", self._escape):
                    character = self._next()
            result.append(character)
        raise DockerfileError("a double quote is not closed")

    def _possible_heredoc(self) -> str:
        self._at += 1
        if self._peek() != "<" or not self._spaced:
            return "<"
        start = self._at
        self._at += 1
        while self._peek() and self._peek() in "\t\r ":
            self._at += 1
        return "<" + self._text[start : self._at]

    def _dollar(self) -> list[str | None]:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            value = self._value(name) if name else None
            if value is not None:
                return list(value.parts)
            return ["$" + name] if self._keep or not name else []
        self._at += 1
        following = self._peek()
        if not following or following in "{}:":
            raise DockerfileError("${…} has no name in it")
        return self._braced(self._name())

    def _braced(self, name: str) -> list[str | None]:
        modifier = self._next()
        if modifier == "}":
            value = self._value(name)
            if value is not None:
                return list(value.parts)
            return ["${" + name + "}"] if self._keep else []
        colon = modifier == ":"
        if colon:
            modifier = self._next()
        if not modifier or modifier not in ("+-?" if colon else "+-?#%/"):
            raise DockerfileError(f"${{{name}{':' if colon else ''}{modifier}…}} is no substitution that builders know")
        self.newer |= not colon and modifier in _NEWER_MODIFIERS
        # Some lexers forget what they have of a word where a substitution with a word of its own follows it.
        if self._keep and self.words.arrows:
            raise DockerfileError("a heredoc's name has a substitution in it, which builders read in different ways")
        if modifier == "/":
            return self._replaced(name)
        operand = self.until("}", raw_escapes=modifier in "#%")
        value = self._value(name)
        if value is None and self._keep:
            return [f"${{{name}{':' if colon else ''}{modifier}", *operand, "}"]
        if modifier in "#%":
            return [self._trimmed(value or Word(), modifier, Word.joined(operand))]
        return self._chosen(name, value, modifier, operand, colon)

    def _chosen(
        self, name: str, value: Word | None, modifier: str, operand: list[str | None], colon: bool
    ) -> list[str | None]:
        if value == UNKNOWN:
            return [None]
        missing = value is None or (value.empty if colon else False)
        if missing is None:
            return [None]
        if modifier == "+":
            return [] if missing else operand
        if not missing:
            return list(value.parts) if value else []
        if modifier == "-":
            return operand
        raise DockerfileError(f"the variable {name} has no value, and ${{{name}{':' if colon else ''}?…}} asks for one")

    def _replaced(self, name: str) -> list[str | None]:
        """``${name/pattern/text}``: followed as syntax only, its result taken for unknown."""
        if self._peek() == "/":
            self._at += 1
        pattern, text = self.until("/", raw_escapes=True), self.until("}", raw_escapes=True)
        value = self._value(name)
        if value is None:
            return [f"${{{name}/", *pattern, "/", *text, "}"] if self._keep else []
        return [None]

    def _trimmed(self, value: Word, modifier: str, pattern: Word) -> str | None:
        """``${name#pattern}`` and ``${name%pattern}``, the sign doubled for the longest match."""
        known, glob = value.text, pattern.text
        if known is None or glob is None:
            return None
        longest = glob.startswith(modifier)
        self._budget.spend(len(glob) * (len(known) + 1))
        try:
            return trim(known, glob[longest:], from_end=modifier == "%", longest=longest)
        except ValueError as error:
            raise DockerfileError(f"${{…{modifier}…}}: {error}") from None

    def _name(self) -> str:
        first = self._peek()
        if first.isdecimal():
            return self._while(str.isdecimal)
        if first and first in _SPECIAL_PARAMETERS:
            return self._next()
        return self._while(lambda character: character == "_" or character.isalpha() or character.isdecimal())

    def _while(self, belongs: Callable[[str], bool]) -> str:
        start = self._at
        while self._at < len(self._text) and belongs(self._text[self._at]):
            self._at += 1
        name = self._text[start : self._at]
        # What counts as a letter depends on the builder's version of Unicode.
        if not name.isascii():
            raise DockerfileError(f"the variable {name!r} has other letters than A to Z in its name")
        return name

    def _value(self, name: str) -> Word | None:
        value = self._lookup(name)
        if value is not None:
            self._budget.spend(sum(len(part or "") for part in value.parts))
        return value
