"""The outbox's worker: puts what deliveries asked for into the queue, looks at it, and tells its states to git hosts.

It has a thread of its own, and a few that wait for git hosts: a slow one delays nobody else. What is to be done is in
the store, so that it goes on where it was after a restart, with the states of the builds that ended meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from caisson.errors import CaissonError, RequestInvalid, ServiceUnreachable
from caisson.queueing import Priority
from caisson.settings import Settings
from caisson.webhooks.rules import Hook, Rules
from caisson.webhooks.status import (
    MOST_ATTEMPTS,
    BuildState,
    StatusMessage,
    Verdict,
    authorization,
    build_state,
    pause_after,
    status_message,
    verdict,
)
from deployments.api.hook_secrets import HookSecrets
from deployments.names import BUILD_FLOW
from deployments.prefect_pool import PrefectPool
from deployments.queue import enqueue
from deployments.server import server_url
from deployments.trigger import PAGE, DeploymentUnknown
from deployments.webhook_rules import RulesFile
from deployments.webhook_store import AskedBuild, WebhookStore

ORIGIN_TAG = "caisson:origin="
LOOK_SECONDS = 1.0
IDLE_SECONDS = 30.0
SEND_SECONDS = 10.0
SENDERS = 4
CLOSE_SECONDS = 2.0
MOST_ANSWER = 64 << 10
FORGET_EVERY = timedelta(hours=1)
# After that nobody waits for the build.
GIVE_UP_AFTER = timedelta(days=30)
LONGEST_OUTAGE_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=5)
_log = logging.getLogger("caisson.webhooks")


class WebhookWorker:
    """Runs from ``start`` to ``close``. ``wake`` has it look at the store at once."""

    def __init__(
        self,
        settings: Settings,
        store: WebhookStore,
        prefect: PrefectPool,
        rules: RulesFile,
        secrets: HookSecrets,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._store = store
        self._prefect = prefect
        self._rules = rules
        self._secrets = secrets
        self._clock = clock
        self._woken = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._client = httpx.Client(timeout=SEND_SECONDS, follow_redirects=False, trust_env=True)
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="status")
        self._sending: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._forget_at = self._begin_at = self._clock()
        self._outages = 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """End both kinds of threads; what is under way is done or tried again after the next start."""
        self._stopping = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        self._senders.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            under_way = list(self._sending.values())
        wait(under_way, timeout=CLOSE_SECONDS)
        self._client.close()

    def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            pause = LOOK_SECONDS
            try:
                self.round()
                pause = IDLE_SECONDS if self._store.is_idle() else LOOK_SECONDS
            except ServiceUnreachable as error:
                _log.debug("Prefect can't be asked about webhook builds: %s", error)
            except CaissonError as error:
                _log.warning("Webhook builds wait: %s", error)
            except Exception:
                # The thread that tells every state may not end by one that it does not understand.
                _log.exception("A round over the webhook builds failed.")
            self._woken.wait(pause)

    def round(self) -> None:
        """Begin, look, tell: once. What can't be done now is tried again in a later round."""
        now = self._clock()
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY
            self._store.forget(now)
        rules = self._rules.current()
        try:
            self._begin(rules)
            self._look()
        finally:
            # Also while Prefect is away: git hosts are owed what is known.
            self._tell(rules)

    def _begin(self, rules: Rules) -> None:
        if self._clock() < self._begin_at:
            return
        if self._settings.supersede != "off":
            for build in self._store.superseded():
                _log.info("A build of the webhook %s is dropped: a newer push to its branch is built.", build.hook)
                self._store.set_states({build.key: BuildState.CANCELLED}, self._clock())
        for build in self._store.to_begin(self._clock()):
            if rules.find(build.hook) is None:
                _log.warning("A build of the webhook %s is dropped: the hook is no longer in the file.", build.hook)
                self._store.set_states({build.key: BuildState.CANCELLED}, self._clock())
                continue
            try:
                with self._prefect.api() as api:
                    made = enqueue(
                        api,
                        dict(build.request),
                        deployment=f"{BUILD_FLOW}/{build.host or self._settings.host_name}",
                        idempotency_key=build.key,
                        priority=Priority(build.priority),
                        supersede=build.supersede,
                        superseding=self._settings.supersede,
                        asker=f"webhook/{build.hook}",
                        asked=build.asked,
                        tags=(f"{ORIGIN_TAG}webhook/{build.hook}",),
                    )
            except RequestInvalid as error:
                _log.warning("A build of the webhook %s was refused: %s", build.hook, error)
                self._store.set_states({build.key: BuildState.FAILURE}, self._clock())
            except DeploymentUnknown as error:
                pause = min(pause_after(build.attempts + 1), LONGEST_PAUSE)
                self._try_again(build, error, self._clock() + pause)
            except ServiceUnreachable as error:
                # The others would wait for the same. All wait together: one that waited alone could come behind a
                # newer push of its branch.
                self._outages += 1
                self._begin_at = self._clock() + min(pause_after(self._outages), LONGEST_OUTAGE_PAUSE)
                self._try_again(build, error, self._clock())
                return
            else:
                self._store.begun(build.key, made.flow_run_id, self._clock())
            self._outages = 0

    def _try_again(self, build: AskedBuild, error: ServiceUnreachable, at: datetime) -> None:
        if self._clock() - build.asked > GIVE_UP_AFTER:
            _log.warning("A build of the webhook %s can't be begun: %s", build.hook, error)
            self._store.set_states({build.key: BuildState.FAILURE}, self._clock())
        else:
            self._store.postpone(build.key, build.attempts + 1, at)

    def _look(self) -> None:
        builds = self._store.in_flight()
        if not builds:
            return
        ids = sorted({build.flow_run_id for build in builds})
        states: dict[str, BuildState] = {}
        with self._prefect.api() as api:
            for first in range(0, len(ids), PAGE):
                body = {"flow_runs": {"id": {"any_": ids[first : first + PAGE]}}, "limit": PAGE}
                states |= {str(run["id"]): _state_of(run) for run in api.post("/flow_runs/filter", body)}
        # One that was deleted has no state to tell, and never gets one.
        found = {build.key: states.get(build.flow_run_id, BuildState.CANCELLED) for build in builds}
        self._store.set_states(
            {build.key: found[build.key] for build in builds if found[build.key] is not build.state}, self._clock()
        )

    def _tell(self, rules: Rules) -> None:
        for build in self._store.to_tell(self._clock()):
            hook = rules.find(build.hook)
            if hook is None or hook.status is None:
                self._store.told(build.key, build.state)
                continue
            with self._lock:
                if build.key in self._sending:
                    continue
                self._sending[build.key] = self._senders.submit(self._send, hook, build, rules.link)

    def _send(self, hook: Hook, build: AskedBuild, link: str | None) -> None:
        try:
            message = status_message(
                hook,
                sha=build.sha,
                ref=build.ref,
                context=build.context,
                state=build.state,
                link=(link or self._default_link()).replace("{run}", build.flow_run_id) if build.flow_run_id else None,
            )
            status, answer = self._post(hook, message)
            found = verdict(hook.provider, status, answer)
            if found is Verdict.TOLD:
                self._store.told(build.key, build.state)
            elif found is Verdict.AGAIN and build.attempts + 1 < MOST_ATTEMPTS:
                attempts = build.attempts + 1
                self._store.postpone(build.key, attempts, self._clock() + pause_after(attempts))
            else:
                _log.warning(
                    "%s does not take the status %s of the webhook %s (HTTP %s); it is given up.",
                    httpx.URL(message.url).host,
                    build.state,
                    hook.name,
                    status or "without an answer",
                )
                self._store.told(build.key, build.state)
        except CaissonError as error:
            _log.warning("The status %s of the webhook %s can't be told: %s", build.state, hook.name, error)
            self._postpone_quietly(build)
        except Exception:
            _log.exception("The status %s of the webhook %s can't be told.", build.state, hook.name)
            self._postpone_quietly(build)
        finally:
            with self._lock:
                self._sending.pop(build.key, None)
            self.wake()

    def _postpone_quietly(self, build: AskedBuild) -> None:
        """Where the store itself is what fails, the next round finds the build as it was."""
        attempts = build.attempts + 1
        try:
            if attempts >= MOST_ATTEMPTS:
                self._store.told(build.key, build.state)
            else:
                self._store.postpone(build.key, attempts, self._clock() + pause_after(attempts))
        except CaissonError as error:
            _log.warning("%s", error)

    def _post(self, hook: Hook, message: StatusMessage) -> tuple[int, bytes]:
        """HTTP status and the beginning of the answer; 0 where there is none."""
        assert hook.status is not None
        headers = authorization(hook.provider, self._secrets.value(hook.status.token))
        try:
            with self._client.stream("POST", message.url, json=message.body, headers=headers) as response:
                answer = b""
                for piece in response.iter_bytes(MOST_ANSWER):
                    answer += piece
                    if len(answer) >= MOST_ANSWER:
                        break
                return response.status_code, answer
        except (httpx.HTTPError, httpx.InvalidURL):
            # Not quoted: an error of a proxy or of TLS may repeat headers.
            return 0, b""

    def _default_link(self) -> str:
        base = self._settings.api_url.removesuffix("/api") or server_url(self._settings)
        return f"{base}/runs/flow-run/{{run}}"


def _state_of(run: dict[str, Any]) -> BuildState:
    state = run.get("state") or {"type": "PENDING", "name": "Pending"}
    return build_state(str(state["type"]), str(state.get("name") or ""))
