"""What the lines of a push mean: every sentence here was said by a real engine, unless its test says otherwise."""

from __future__ import annotations

import doctest

import pytest

import caisson.push
from caisson.engine import PushProgress
from caisson.errors import CaissonError, EngineLost, EngineRefused, PushDenied, RegistryUnreachable
from caisson.push import (
    RETRY_SECONDS,
    PushLog,
    PushRetries,
    classify_push_error,
    parse_push_line,
    retry_delay,
    should_retry,
)
from caisson.reference import Digest

DIGEST = "sha256:1716965af44eee1999d4c8e19ebe45a0db1c9e75d1cea2620325f845dc04bdab"


def test_the_examples_in_the_documentation_are_true() -> None:
    assert doctest.testmod(caisson.push).failed == 0


@pytest.mark.parametrize(
    "message",
    [
        "unauthorized: authentication required",
        "unauthorized: incorrect username or password",
        "unauthorized",
        "no basic auth credentials",
        "denied",
        "denied: requested access to the resource is denied",
        "errors:\ndenied: User: arn:x is not authorized\nunknown: more\n",
        "error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: \"<p>no</p>\"",
        # The containerd store's (source).
        "push access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed",
        "failed to authorize: failed to fetch oauth token: unexpected status from POST request to "
        "https://auth.example.com/token: 401 Unauthorized",
    ],
)
def test_a_denial_is_not_tried_again(message: str) -> None:
    error = classify_push_error(message)
    assert type(error) is PushDenied
    assert not should_retry(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ('Get "http://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused', "can't be reached"),
        ("dial tcp 127.0.0.1:58621: connect: connection refused", "can't be reached"),
        (
            'Get "https://none.invalid/v2/": dial tcp: lookup none.invalid on 10.0.0.1:53: no such host',
            "can't be reached",
        ),
        (
            'Get "http://127.0.0.1:5000/v2/": read tcp 127.0.0.1:3->127.0.0.1:5000: read: connection reset by peer',
            "can't be reached",
        ),
        (
            'Get "http://127.0.0.1:5000/v2/": net/http: HTTP/1.x transport connection broken: malformed HTTP status '
            'code "world"',
            "can't be reached",
        ),
        # From the source of Go's net/http.
        (
            'Get "https://r.io/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded '
            "while awaiting headers)",
            "can't be reached",
        ),
        ('Get "https://r.io/v2/": net/http: TLS handshake timeout', "can't be reached"),
        ('Put "https://r.io/v2/a": unexpected EOF', "can't be reached"),
        ('Get "https://r.io/v2/": remote error: tls: internal error', "can't be reached"),
        ("received unexpected HTTP status: 503 Service Unavailable", "The registry failed"),
        ("received unexpected HTTP status: 500 Internal Server Error", "The registry failed"),
        ("received unexpected HTTP status: 507 Insufficient Storage", "The registry failed"),
        # The containerd store's (source).
        ("unexpected status from PUT request to http://r.io:401/v2/a/manifests/1: 502 Bad Gateway", "failed"),
        ("toomanyrequests: pull rate limit", "takes no more requests"),
        (
            "error parsing HTTP 429 response body: invalid character 's' looking for beginning of value: \"slow\"",
            "takes no more requests",
        ),
    ],
)
def test_network_faults_and_5xx_are_tried_again(message: str, sentence: str) -> None:
    error = classify_push_error(message)
    assert type(error) is RegistryUnreachable
    assert should_retry(error)
    assert sentence in error.message


@pytest.mark.parametrize(
    "message",
    [
        'Get "https://172.17.0.1:5000/v2/": x509: certificate signed by unknown authority',
        'Get "https://10.0.0.2:5000/v2/": tls: failed to verify certificate: x509: certificate signed by unknown '
        "authority",
        'Get "https://172.17.0.1:5000/v2/": http: server gave HTTP response to HTTPS client',
    ],
)
def test_a_lack_of_trust_does_not_pass_by_trying_again(message: str) -> None:
    error = classify_push_error(message)
    assert type(error) is RegistryUnreachable
    assert not should_retry(error)
    assert "certs.d" in error.hint


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("name unknown", "does not take this repository"),
        ("name invalid", "does not take this repository"),
        (
            "error parsing HTTP 404 response body: invalid character 'o' in literal null (expecting 'u'): \"nope\"",
            "does not take this repository",
        ),
        ("error parsing HTTP 413 response body: unexpected end of JSON input", "an image of this size"),
        ("An image does not exist locally with the tag: r.io/a", "not on the engine any more"),
        ("tag does not exist: r.io/a:v1", "not on the engine any more"),
        ("manifest invalid", "The push failed: manifest invalid."),
        ("invalid checksum digest format", "The push failed"),
        ("", "The push failed: the engine gave no reason."),
    ],
)
def test_all_else_is_the_engines_refusal_and_is_not_tried_again(message: str, sentence: str) -> None:
    error = classify_push_error(message)
    assert type(error) is EngineRefused
    assert not should_retry(error)
    assert sentence in error.message


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('Get "https://unauthorized.example.com/v2/": dial tcp 1.2.3.4:401: connect: connection refused', "network"),
        ('Get "https://r.io/v2/denied/": dial tcp: lookup denied.x509.io on 1.1.1.1:53: no such host', "network"),
        ("unexpected status from GET request to https://r.io/v2/a/401: 503 Service Unavailable", "server"),
        ("unexpected status from GET request to https://r.io:403/v2/: 503 Service Unavailable", "server"),
        ('error parsing HTTP 403 response body: invalid character \'<\': "received HTTP status: 503 \\"x509: \\""', ""),
        ("manifest invalid: the word unauthorized or denied or EOFs in a text of the registry", ""),
    ],
)
def test_names_and_bodies_do_not_decide_what_a_failure_is(message: str, kind: str) -> None:
    assert classify_push_error(message).details.get("fault", "") == kind


def test_what_is_secret_in_a_failure_is_not_shown() -> None:
    error = classify_push_error(
        'Put "https://key:hunter2@s3.example.com/blob?X-Amz-Signature=hunter2&x=1": dial tcp: i/o timeout'
    )
    assert isinstance(error, RegistryUnreachable)
    assert "hunter2" not in str(error.to_dict())
    assert "s3.example.com/blob?…" in error.message


def test_what_a_registry_says_is_shown_as_one_short_harmless_line() -> None:
    error = classify_push_error("denied: \x1b[31mred\x1b[0m\nline " + "x" * 100_000)
    assert type(error) is PushDenied
    assert "red line" in error.message
    assert error.message.isprintable()
    assert len(error.message) < 500


def test_other_failures_are_not_tried_again() -> None:
    for error in (EngineLost("x"), EngineRefused("x"), CaissonError("x"), PushDenied("x")):
        assert not should_retry(error)


def test_delays_grow_and_are_bounded() -> None:
    delays = [retry_delay(attempt) for attempt in range(1, 2000)]
    assert delays[:2] == [2, 4]
    assert delays == sorted(delays)
    assert max(delays) == 30


FAULT = classify_push_error("received unexpected HTTP status: 503 Service Unavailable")


def _try_in_vain(retries: PushRetries, seconds: float) -> tuple[int, float]:
    """Pushes one tag whose tries all fail after so many seconds; returns the tries and the whole time."""
    attempt, took = 1, seconds
    while (delay := retries.delay(FAULT, attempt)) is not None:
        retries.spend(delay + seconds)
        took += delay + seconds
        attempt += 1
    return attempt, took


def test_a_tag_is_tried_as_often_as_the_setting_says() -> None:
    assert _try_in_vain(PushRetries(3), 0.1) == (3, pytest.approx(6.3))
    assert _try_in_vain(PushRetries(1), 0.1) == (1, 0.1)
    assert PushRetries(3).delay(PushDenied("x"), 1) is None


@pytest.mark.parametrize("seconds", [0, 1, 50])
def test_all_tags_together_are_tried_again_for_a_minute_and_one_more_try_at_most(seconds: float) -> None:
    retries = PushRetries(10)
    again = sum(_try_in_vain(retries, seconds)[1] - seconds for _ in range(12))
    assert RETRY_SECONDS / 2 < again <= RETRY_SECONDS + seconds
    assert _try_in_vain(retries, seconds)[0] <= 2


def test_the_failure_says_how_long_was_tried() -> None:
    retries = PushRetries(3)
    _try_in_vain(retries, 0.1)
    told = retries.give_up(FAULT, 3)
    assert type(told) is RegistryUnreachable
    assert told.message == f"{FAULT.message} It was tried 3 times; 6 s went into trying again."
    assert told.hint == FAULT.hint
    assert told.details == {**FAULT.details, "attempts": 3, "retry_seconds": 6.2}
    assert retries.give_up(FAULT, 1) is FAULT


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ({"status": "The push refers to repository [127.0.0.1:5000/team/app]"}, None),
        (
            {"status": "Preparing", "progressDetail": {}, "id": "5532dd85b0f6"},
            PushProgress("5532dd85b0f6", "Preparing"),
        ),
        (
            {
                "status": "Pushing",
                "progressDetail": {"current": 66048, "total": 6000000},
                "progress": "[>    ]  66.05kB/6MB",
                "id": "5532dd85b0f6",
            },
            PushProgress("5532dd85b0f6", "Pushing", 66048, 6000000),
        ),
        ({"status": f"v1: digest: {DIGEST} size: 527"}, Digest(DIGEST)),
        ({"status": f"Layer v1: digest: {DIGEST} size: 527"}, None),
        ({"progressDetail": {}, "aux": {"Tag": "v1", "Digest": DIGEST, "Size": 527}}, Digest(DIGEST)),
        ({}, None),
        ({"aux": None, "progressDetail": None, "id": "x"}, PushProgress("x", "")),
    ],
)
def test_a_line_is_progress_or_the_digest_or_nothing(line: dict[str, object], event: object) -> None:
    assert parse_push_line(line) == event


@pytest.mark.parametrize(
    "line",
    [
        {"errorDetail": {"message": "denied"}, "error": "denied"},
        {"errorDetail": {"message": "denied"}},
        {"error": "denied", "aux": {"Digest": DIGEST}},
    ],
)
def test_a_line_with_an_error_is_a_failure_whatever_else_it_has(line: dict[str, object]) -> None:
    assert isinstance(parse_push_line(line), PushDenied)


def test_an_error_without_words_is_a_failure_too() -> None:
    assert isinstance(parse_push_line({"error": "", "errorDetail": {}}), EngineRefused)


def _log(*events: tuple[float, PushProgress]) -> list[str]:
    log = PushLog()
    return [line for now, event in events if (line := log.add(event, now=now))]


MIB = 1 << 20


def test_a_push_of_under_a_second_says_nothing() -> None:
    assert _log(*((i / 1000, PushProgress("a", "Pushing", i * MIB, 999 * MIB)) for i in range(999))) == []


def test_progress_is_summed_over_all_layers() -> None:
    lines = _log(
        (0, PushProgress("a", "Preparing")),
        (0, PushProgress("b", "Preparing")),
        (0, PushProgress("c", "Waiting")),
        (0.5, PushProgress("a", "Pushing", 1 * MIB, 4 * MIB)),
        (1.0, PushProgress("b", "Pushing", 2 * MIB, 6 * MIB)),
        (1.5, PushProgress("a", "Pushed")),
        (2.0, PushProgress("c", "Layer already exists")),
        (3.0, PushProgress("b", "Pushing", 6 * MIB + 512, 6 * MIB)),
        (4.0, PushProgress("b", "Pushed")),
    )
    assert lines == [
        "pushing: 0 of 3 layers, 3 MiB of 10 MiB",
        "pushing: 2 of 3 layers, 6 MiB of 10 MiB",
        "pushing: 2 of 3 layers, 10 MiB of 10 MiB",
        "pushing: 3 of 3 layers, 10 MiB of 10 MiB",
    ]


def test_a_registry_that_fails_is_told_while_the_engine_tries_again() -> None:
    lines = _log(
        (0, PushProgress("a", "Pushing", MIB, 2 * MIB)),
        *((float(i), PushProgress("a", f"Retrying in {5 - i} seconds")) for i in range(1, 5)),
        (6, PushProgress("a", "Pushing", MIB, 2 * MIB)),
    )
    assert lines == [
        "pushing: 0 of 1 layers, 0 B of 2 MiB; the registry failed 1 of them, the engine tries again",
        "pushing: 0 of 1 layers, 1 MiB of 2 MiB",
    ]


def test_layers_that_are_there_already_have_no_size_to_tell() -> None:
    events = [(float(i), PushProgress(str(i), "Mounted from team/app")) for i in range(2)]
    assert _log(*events) == ["pushing: 2 of 2 layers"]
