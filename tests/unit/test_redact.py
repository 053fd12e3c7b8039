"""Each form that a secret is likely to be printed in is masked, and nothing is held back for long."""

from __future__ import annotations

import base64
import doctest
import json
import shlex
import time
from urllib.parse import quote, quote_plus

import pytest

import caisson.redact
from caisson.redact import Redactor, forms_of

SECRET = "p@ss/w0rd+&'ünter <x>"
_BEGIN, _END = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
KEY = f"{_BEGIN}\nb3BlbnNzaC1rZXktdjEAAAAA\nQyNTUxOQAAACB4\nab==\n{_END}\n"


def test_the_examples_in_the_module_hold() -> None:
    assert doctest.testmod(caisson.redact).failed == 0


@pytest.mark.parametrize(
    "printed",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").replace("%C3%BC", "%c3%bc").replace("%2F", "%2f").replace("%40", "%40").lower(),
        quote(SECRET, safe="$&+,;="),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(SECRET, ensure_ascii=False).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        repr(SECRET),
        shlex.quote(SECRET),
        "'" + SECRET.replace("'", "'\\''") + "'",
        "p@ss/w0rd+\\&\\'ünter\\ \\<x\\>",
        "p@ss/w0rd+&amp;'ünter &lt;x&gt;",
    ],
)
def test_every_usual_form_of_a_secret_is_masked(printed: str) -> None:
    redactor = Redactor([SECRET])
    line = f"token={printed}; next"
    clean = redactor.redact(line)
    assert "***" in clean
    assert not any(form in clean for form in forms_of(SECRET))
    assert "w0rd" not in clean
    streamed = redactor.feed(line.encode()) + redactor.flush()
    assert streamed.decode() == clean


@pytest.mark.parametrize("user", ["", "x", "me", "git", "oauth2", "x-access-token"])
@pytest.mark.parametrize("after", ["", "\n", "!!"])
def test_a_secret_inside_a_longer_base64_text_is_masked_at_every_alignment(user: str, after: str) -> None:
    token = "glpat-0123456789abcdef"
    header = base64.b64encode(f"{user}:{token}{after}".encode()).decode()
    clean = Redactor([token]).redact(f"Authorization: Basic {header}")
    assert "***" in clean
    assert len(clean) - len("Authorization: Basic ***") <= len(base64.b64encode(f"{user}:{after}".encode())) + 4


def test_each_long_line_of_a_key_is_masked_and_its_frame_is_not() -> None:
    redactor = Redactor([KEY])
    assert redactor.redact("key: b3BlbnNzaC1rZXktdjEAAAAA.") == "key: ***."
    assert redactor.redact("-----BEGIN OPENSSH PRIVATE KEY-----") == "-----BEGIN OPENSSH PRIVATE KEY-----"


def test_a_key_as_a_whole_is_masked_with_its_short_lines() -> None:
    redactor = Redactor([KEY])
    shown = (
        b"".join(redactor.feed(line.encode()) for line in f"a\n{KEY}b\n".splitlines(keepends=True)) + redactor.flush()
    )
    assert shown == b"a\n***\nb\n"


def test_white_space_around_a_secret_does_not_count() -> None:
    assert Redactor(["  hunter22\n"]).redact("hunter22!") == "***!"


@pytest.mark.parametrize("secret", ["", "abc", " ab \n"])
def test_a_secret_of_fewer_than_four_characters_is_not_masked(secret: str) -> None:
    redactor = Redactor([secret])
    assert redactor.redact("abc ab") == "abc ab"
    assert redactor.feed(b"abc ab") + redactor.flush() == b"abc ab"


def test_of_two_secrets_the_longer_is_masked_whole() -> None:
    redactor = Redactor(["hunter22", "hunter22-and-more"])
    assert redactor.redact("<hunter22-and-more> <hunter22-and>") == "<***> <***-and>"
    assert redactor.feed(b"<hunter22-and-m") == b"<"
    assert redactor.feed(b"ore>") + redactor.flush() == b"***>"


def test_the_mask_can_not_complete_a_secret() -> None:
    redactor = Redactor(["abc*"])
    assert "abc*" not in redactor.redact("abcabc*")


def test_a_stream_is_not_held_back_where_no_secret_may_have_begun() -> None:
    redactor = Redactor(["hunter22"])
    assert redactor.feed(b"Step 1/4 : RUN x\n") == b"Step 1/4 : RUN x\n"
    assert redactor.feed(b"no line end") == b"no line end"
    assert redactor.feed(b"hunt") == b""
    assert redactor.feed(b"ing\n") == b"hunting\n"
    assert redactor.flush() == b""


def test_bytes_that_are_no_text_pass() -> None:
    redactor = Redactor(["hunter22"])
    assert redactor.feed(b"\xff\xfehunter22\x00\xc3") + redactor.flush() == b"\xff\xfe***\x00\xc3"


def test_a_redactor_does_not_show_its_secrets() -> None:
    assert "hunter22" not in repr(Redactor(["hunter22"]))


def test_fifty_thousand_lines_cost_less_than_half_a_second() -> None:
    line = "#12 3.456 [build 4/9] compiling src/module/file.c -O2 -Wall -Iinclude 0123456789ab"
    redactor = Redactor(["glpat-0123456789abcdef", SECRET])
    begin = time.process_time()
    for _ in range(50_000):
        redactor.redact(line)
    chunk = f"{line}\n".encode() * 400
    for _ in range(125):
        redactor.feed(chunk)
    assert time.process_time() - begin < 2 * 0.5
