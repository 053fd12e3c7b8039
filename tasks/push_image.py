"""Step: every tag to its registry, digests recorded."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime

from caisson.build import Build
from caisson.engine import ImageID, RegistryAuth
from caisson.errors import CaissonError
from caisson.push import PUSH_SILENCE_SECONDS, PushLog, PushRetries
from caisson.tag_turn import left_alone, tag_turn
from tasks.step import step


@step("push_image")
def push_image(build: Build) -> None:
    """Push; network faults and 5xx are tried again, a denial is not.

    It has what is left of the build's timeout. A tag that a later push of the same ref has moved meanwhile is left: the
    registry's must not go back either. Raises ``PushDenied``, ``RegistryUnreachable``, ``BuildTimedOut``.
    """
    auth = build.registry_auth
    if auth is None:
        build.log.line(f"no credential of this host is bound to {build.spec.image.registry}: pushing without one")
    pushed = []
    retries = PushRetries(build.settings.push_attempts)
    for tag in build.record.tags:
        with tag_turn(build, tag.reference, tag.rule, to="push") as is_mine:
            if not is_mine:
                build.record.notes.append(f"{left_alone(tag.reference)}.")
                build.log.line(left_alone(tag.reference))
                continue
            digest = _push(build, tag.reference, auth, retries)
        build.ledger.builds.record_push(
            reference=tag.reference,
            image_id=ImageID(build.record.image_id),
            digest=digest,
            build_id=build.identity.build_id,
            pushed=datetime.now(UTC),
        )
        build.log.line(f"{tag.reference} is pushed: {digest}")
        pushed.append(tag.model_copy(update={"digest": digest}))
    build.record.tags = pushed


def _push(build: Build, reference: str, auth: RegistryAuth | None, retries: PushRetries) -> str:
    attempt, began = 1, time.monotonic()
    while True:
        try:
            return _push_once(build, reference, auth)
        except CaissonError as error:
            build.require_time()
            if attempt > 1:
                retries.spend(time.monotonic() - began)
            delay = retries.delay(error, attempt)
            if delay is None:
                raise retries.give_up(error, attempt) from None
            build.log.line(f"{error.message} Trying again in {delay:.1f} s ({attempt} of {retries.attempts}).")
            began = time.monotonic()
            time.sleep(max(0.0, min(delay, build.seconds_left())))
            attempt += 1


def _push_once(build: Build, reference: str, auth: RegistryAuth | None) -> str:
    log = PushLog()
    # The engine ends a push whose answer nobody reads on.
    silence = max(1.0, min(PUSH_SILENCE_SECONDS, build.seconds_left()))
    with closing(build.engine.push_image(reference, auth, silence=silence)) as progress:
        while True:
            build.require_time()
            try:
                line = log.add(next(progress), now=time.monotonic())
            except StopIteration as end:
                return str(end.value)
            if line:
                build.log.line(line)
