"""Text that strangers wrote (branch names, Dockerfile steps, log lines), made harmless where it is shown. Pure.

All ASCII punctuation, which is all that has a meaning in markdown, is escaped by a backslash (CommonMark 0.31, section
2.4). Character references would do the same by the book, but Prefect's older pages show them undecoded. Web addresses
are cut by an empty comment, since Prefect's newer pages make links of them after the escapes are gone.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_SPECIAL = re.compile(f"[{re.escape(string.punctuation)}]")
_AUTOLINK = re.compile(r"(?<=http)(?=://)|(?<=https)(?=://)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)
_CUT = "<!-- -->"


def clean(text: str) -> str:
    """One line, without escape sequences; what is invisible or turns the writing direction is made visible.

    >>> clean("main\\x1b[31m\\nred"), clean("a\\u202eb")
    ('main red', 'a\\ufffdb')
    """
    return re.sub(r"\s+", " ", clean_line(text)).strip()


def clean_line(text: str) -> str:
    """The same, with its spaces kept; for lines in a code block."""
    return "".join(_visible(character) for character in _ANSI.sub("", text).replace("\t", "    "))


def _visible(character: str) -> str:
    if character in "\n\r\v\f\x85\u2028\u2029":
        return " "
    # Noncharacters are not allowed in XML; surrogates can't be encoded; format characters can hide or reverse text.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs") or character in "\ufffe\uffff":
        return "\ufffd"
    return character


def shorten(text: str, most: int) -> str:
    """At most so many characters, the cut marked.

    >>> shorten("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def markdown(text: str, most: int = 500) -> str:
    """The text as markdown that shows it and nothing else, also in a table's cell; at most ``most`` characters of it.

    >>> print(markdown("a|b <img>"))
    a\\|b \\<img\\>
    """
    pieces = _AUTOLINK.split(shorten(clean(text), most))
    return _CUT.join(_SPECIAL.sub(r"\\\g<0>", piece) for piece in pieces)


def code(text: str, most: int = 500) -> str:
    """The same in a fixed-width font, but for the rare text that can't be: a code span in a table knows no escape.

    >>> print(code("v1.0"), code("a|b"))
    `v1.0` a\\|b
    """
    shown = shorten(clean(text), most)
    if not shown or any(character in shown for character in "`|\\"):
        return markdown(shown, most)
    return f"`{shown}`"


def code_block(lines: list[str], most: int = 400) -> str:
    """Lines as a fenced block, each at most ``most`` characters, the fence longer than any within."""
    shown = [shorten(clean_line(line), most) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *shown, fence])


def folded_block(title: str, lines: list[str], most: int = 400) -> str:
    """Lines as a block that opens when its title is clicked, each at most ``most`` characters.

    All of it is one block of HTML, since Prefect's older pages close an element where a block of markdown begins.
    """
    shown = [shorten(clean_line(line), most) for line in lines]
    # A blank line would end the block of HTML, and the rest would be markdown.
    body = "\n".join(html.escape(line) if line.strip() else "&#32;" for line in shown)
    return f"<details><summary>{html.escape(clean(title))}</summary><pre><code>{body}\n</code></pre></details>"
