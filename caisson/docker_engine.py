"""The Docker engine, behind ``caisson.engine.Engine``. The only module that imports ``docker``."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import requests
import urllib3
from docker import APIClient
from docker.auth import encode_header
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from caisson import docker_answers as answers
from caisson.cache_bounds import cache_bounds
from caisson.engine import (
    ContainerID,
    ContainerInfo,
    DiskPart,
    EngineDescription,
    EngineEvent,
    EngineInfo,
    ImageID,
    ImageInfo,
    Layer,
    OnOutput,
    PushProgress,
    RegistryAuth,
)
from caisson.engine_disk import EngineDisk, parse_engine_disk
from caisson.errors import (
    BuilderImageMissing,
    EngineFault,
    EngineLost,
    EngineRefused,
    EngineUnreachable,
    RemovalRefused,
    SettingsInvalid,
)
from caisson.exec_output import ExecOutput
from caisson.pull import PULL_SILENCE_SECONDS, base_image_failure
from caisson.push import PUSH_SILENCE_SECONDS, classify_push_error, parse_push_line, silent_registry
from caisson.reference import parse_reference
from caisson.untrusted import clean

_POLL_SECONDS = 0.02
_DEFAULT_TIMEOUT_SECONDS = 60
# The exit code of a process that SIGKILL ended, as the engine tells it.
_KILLED = 137
_KILL_POLLS = 40
_EXIT_POLLS, _EXIT_SECONDS = 500, 60.0
_EXEC_TRIES, _EXEC_PAUSE_SECONDS = 3, 0.5
# What docker-py reads as it comes it reads from urllib3, whose failures requests does not make its own.
_SILENT = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)
_BROKEN = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError)
_NO_SOURCE = "bind source path does not exist"


class DockerEngine:
    """One engine at ``docker_host`` (``unix:///…``); connects at once.

    Raises ``EngineUnreachable`` when nothing answers there.
    """

    def __init__(self, docker_host: str, *, timeout: float = _DEFAULT_TIMEOUT_SECONDS) -> None:
        self._host = docker_host
        with self._errors():
            # The stubs of the client leave half of its methods untyped.
            self._api: Any = APIClient(base_url=docker_host, version="auto", timeout=int(timeout))
        # No proxy leads to a socket, and looking for one in the environment takes as long as a short answer.
        self._api.trust_env = not docker_host.startswith("unix:")

    def __enter__(self) -> DockerEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._api.close()

    @contextmanager
    def _errors(self, doing: str = "") -> Iterator[None]:
        try:
            yield
        except APIError as error:
            raise EngineRefused(
                f"The Docker engine refused{f' to {doing}' if doing else ''}: {_explanation(error)}."
            ) from None
        except _SILENT:
            raise EngineUnreachable(
                f"The Docker engine at {self._host} did not answer in time ({doing or 'connecting'}).",
                hint="See whether the host is overloaded; `caisson doctor` tells more.",
                details={"timed_out": True},
            ) from None
        except _BROKEN:
            raise EngineUnreachable(
                f"The Docker engine at {self._host} does not answer.",
                hint="Start it, or set CAISSON_DOCKER_HOST to its socket.",
            ) from None

    def info(self) -> EngineInfo:
        with self._errors("describe itself"):
            info, version = self._api.info(), self._api.version()
        return answers.engine_info(info, version)

    def describe(self) -> EngineDescription:
        with self._errors("describe itself"):
            info, version = self._api.info(), self._api.version()
            try:
                bridge = self._api.inspect_network("bridge")
            except APIError:
                bridge = None
            try:
                volumes = self._api.volumes()
            except APIError:
                volumes = None
        return answers.engine_description(info, version, bridge, volumes)

    def create_container(self, name: str, body: Mapping[str, Any]) -> ContainerID:
        with self._errors(f"create the container {name}"):
            try:
                answer = self._api.create_container_from_config(dict(body), name)
            except ImageNotFound:
                raise BuilderImageMissing(
                    f"The builder image {body.get('Image')!r} is not on this engine.",
                    hint="Make it with `caisson builder-image`.",
                ) from None
            except APIError as error:
                if _NO_SOURCE not in str(error.explanation):
                    raise
                raise SettingsInvalid(
                    f"guard_dir: the engine does not see the builder's socket ({error.explanation}).",
                    hint="Set CAISSON_GUARD_DIR to a directory of the engine's own host, and CAISSON_ENGINE_GUARD_DIR "
                    "where that has another path there (CAISSON_ENGINE_SOCKET for the raw socket).",
                ) from None
        return ContainerID(str(answer["Id"]))

    def start_container(self, container: ContainerID) -> None:
        with self._errors("start the builder"):
            self._api.start(container)

    def inspect_container(self, container: ContainerID | str) -> ContainerInfo | None:
        with self._errors("inspect a container"):
            try:
                raw = self._api.inspect_container(container)
            except NotFound:
                return None
        return answers.inspected_container(raw)

    def list_containers(self, labels: Mapping[str, str | None]) -> list[ContainerInfo]:
        wanted = [key if value is None else f"{key}={value}" for key, value in labels.items()]
        with self._errors("list containers"):
            rows = self._api.containers(all=True, filters={"label": wanted})
        return [answers.listed_container(row) for row in rows]

    def exec(
        self,
        container: ContainerID,
        argv: Sequence[str],
        *,
        user: str,
        on_output: OnOutput,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
    ) -> int:
        try:
            for _ in range(_EXEC_TRIES):
                output = ExecOutput(on_output)
                with self._errors("run a step in the builder"):
                    state = self._exec_once(container, argv, output, user=user, env=env, workdir=workdir)
                if not output.is_of_no_process(state):
                    break
                time.sleep(_EXEC_PAUSE_SECONDS)
            else:
                raise EngineFault(
                    "The engine could not start a step in the builder.",
                    hint="`caisson doctor` tells whether the builder image is up to date.",
                    details={"engine_said": output.first_line},
                )
            output.flush()
        except EngineUnreachable as error:
            raise EngineLost(
                "The Docker engine went away while the build ran.",
                hint="Start the build again when the engine is back.",
                details={"cause": error.message},
            ) from None
        if state is None or (state == _KILLED and not self._is_running(container)):
            raise _builder_gone()
        return state

    def _exec_once(
        self,
        container: ContainerID,
        argv: Sequence[str],
        output: ExecOutput,
        *,
        user: str,
        env: Mapping[str, str] | None,
        workdir: str,
    ) -> int | None:
        """The exit code; None when the container went away with the step."""
        try:
            exec_id = self._api.exec_create(
                container, list(argv), user=user, environment=dict(env or {}), workdir=workdir or None
            )["Id"]
        except APIError as error:
            # 404: no such container; 409: it is not running.
            if error.status_code in (404, 409):
                raise _builder_gone() from None
            raise
        for stdout, stderr in self._api.exec_start(exec_id, stream=True, demux=True):
            if stdout:
                output.feed("stdout", stdout)
            if stderr:
                output.feed("stderr", stderr)
        return self._await_exit(container, exec_id)

    def _is_running(self, container: ContainerID) -> bool:
        """Whether a container in which a process was just killed goes on running without it."""
        # When the whole container is killed, its steps are seen to end before it is.
        for _ in range(_KILL_POLLS):
            found = self.inspect_container(container)
            if found is None or found.state != "running":
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _await_exit(self, container: ContainerID, exec_id: str) -> int | None:
        """The exit code; None when the container went away with the step."""
        deadline = time.monotonic() + _EXIT_SECONDS
        # The stream ends a moment before the engine records the exit; a busy engine takes longer.
        while True:
            for _ in range(_EXIT_POLLS):
                try:
                    answer = self._api.exec_inspect(exec_id)
                except NotFound:
                    return None
                if not answer["Running"] and answer["ExitCode"] is not None:
                    return int(answer["ExitCode"])
                time.sleep(_POLL_SECONDS / 4)
            if not self._is_running(container):
                return None
            if time.monotonic() > deadline:
                raise EngineFault(
                    f"The engine did not record within {_EXIT_SECONDS:.0f} s how a step in the builder ended.",
                    hint="See whether the host is overloaded; `caisson doctor` tells more.",
                )

    def remove_container(self, container: ContainerID, *, timeout: float = 30) -> bool:
        deadline = time.monotonic() + timeout
        was_there = False
        while True:
            with self._errors("remove a container"):
                try:
                    self._api.remove_container(container, force=True, v=True)
                except NotFound:
                    return was_there
                except APIError as error:
                    # Already being removed, by auto-remove or by another caller: wait for it below.
                    if error.status_code not in (409, 500):
                        raise
                    reason = _explanation(error)
                else:
                    reason = "it is still listed"
            was_there = True
            if time.monotonic() > deadline:
                raise EngineRefused(
                    f"The container {container[:12]} is still there after {timeout:.0f} s: {reason}.",
                    hint=f"Remove it with `docker rm -f {container[:12]}`.",
                )
            time.sleep(_POLL_SECONDS)

    def inspect_image(self, image: str) -> ImageInfo | None:
        with self._errors("inspect an image"):
            try:
                raw = self._api.inspect_image(image)
            except NotFound:
                return None
        return answers.inspected_image(raw)

    def list_images(
        self, labels: Mapping[str, str] | None = None, *, repository: str = "", intermediate: bool = False
    ) -> list[ImageInfo]:
        filters: dict[str, Any] = {}
        if labels:
            filters["label"] = [f"{key}={value}" for key, value in labels.items()]
        if repository:
            filters["reference"] = repository
        with self._errors("list images"):
            rows = self._api.images(filters=filters or None, all=intermediate)
        return [answers.listed_image(row) for row in rows]

    def events(self, *, since_ns: int = 0) -> list[EngineEvent]:
        # With an end in the past the engine answers at once with what it has; for one in the future it would wait.
        until = time.time_ns()
        if since_ns > until:
            # It refuses an end that is before the beginning; so it is where the clock was set back.
            return []
        with self._errors("tell its events"):
            span = {"since": answers.seconds(since_ns), "until": answers.seconds(until)}
            content = self._ask("GET", self._api._url("/events"), span)
            rows = [json.loads(line) for line in content.splitlines() if line.strip()]
        return [answers.event(row) for row in rows]

    def history(self, image: str) -> list[Layer]:
        with self._errors("read an image's history"):
            rows = self._api.history(image)
        return answers.layers(rows)

    def disk_usage(self, *, timeout: float, parts: Collection[DiskPart] = ()) -> EngineDisk:
        params = {"type": sorted(parts)} if parts and self._api_version() >= (1, 42) else {}
        with self._errors("account for its disk"):
            # The client's own ``df`` has no time-out of its own.
            url = self._api._url("/system/df")
            answer = self._api._result(self._api._get(url, params=params, timeout=timeout), True)
        try:
            # Asked for parts, it tells no size of the layers.
            return parse_engine_disk({"LayersSize": 0, **answer} if params else answer)
        except (KeyError, ValueError, TypeError) as error:
            raise EngineRefused(f"The engine's account of its disk can't be read: {error!r}.") from None

    def tag_image(self, image: ImageID, reference: str) -> None:
        parsed = parse_reference(reference)
        with self._errors(f"tag {reference}"):
            self._api.tag(image, str(parsed.repository), str(parsed.tag))

    def untag_image(self, reference: str) -> bool:
        with self._errors(f"untag {reference}"):
            try:
                self._api.remove_image(reference, force=False, noprune=False)
            except NotFound:
                return False
        return True

    def remove_image(self, image: ImageID | str, *, timeout: float) -> bool:
        params = {"force": False, "noprune": True}
        return self._remove("/images/{0}", image, params, f"remove the image {image}", timeout)

    def remove_ended_container(self, container: ContainerID) -> bool:
        params = {"force": False, "v": False}
        return self._remove("/containers/{0}", container, params, f"remove the container {container[:12]}")

    def remove_volume(self, name: str) -> bool:
        return self._remove("/volumes/{0}", name, {"force": False}, f"remove the volume {name[:12]}")

    def _remove(
        self, path: str, name: str, params: Mapping[str, bool], doing: str, timeout: float | None = None
    ) -> bool:
        with self._errors(doing):
            try:
                self._ask("DELETE", self._api._url(path, name), params, timeout)
            except NotFound:
                return False
            except APIError as error:
                if error.status_code != 409:
                    raise
                raise RemovalRefused(f"The Docker engine refused to {doing}: {_explanation(error)}.") from None
        return True

    def _ask(self, method: str, url: str, params: Mapping[str, object], timeout: float | None = None) -> bytes:
        """One of many small calls, over the one connection of the client's own pool.

        Its session connects anew for each URL, and takes longer than the engine does for most of them.
        """
        api = self._api
        pool = api.get_adapter(api.base_url).get_connection(api.base_url)
        path = f"{url.removeprefix(api.base_url)}?{urlencode(params)}"
        raw = pool.request(method, path, timeout=timeout or api.timeout, retries=False, redirect=False)
        answer = requests.Response()
        answer.status_code, answer.reason, answer._content = raw.status, raw.reason, raw.data
        api._raise_for_status(answer)
        return bytes(raw.data)

    def prune_build_cache(
        self, *, keep_bytes: int, timeout: float, reserved_bytes: int = 0, min_free_bytes: int = 0
    ) -> int:
        bounds = cache_bounds(self._api_version(), keep=keep_bytes, reserved=reserved_bytes, min_free=min_free_bytes)
        with self._errors("prune its build cache"):
            answer = self._api._result(
                self._api._post(self._api._url("/build/prune"), params=bounds, timeout=timeout), True
            )
        return int((answer or {}).get("SpaceReclaimed") or 0)

    def _api_version(self) -> tuple[int, int]:
        major, _, minor = str(self._api.api_version).partition(".")
        return int(major), int(minor or 0)

    def push_image(
        self, reference: str, auth: RegistryAuth | None, *, silence: float = PUSH_SILENCE_SECONDS
    ) -> Generator[PushProgress, None, str]:
        parsed = parse_reference(reference)
        digest = ""
        try:
            url = self._api._url("/images/{0}/push", str(parsed.repository))
            for line in self._transfer(url, {"tag": str(parsed.tag)}, auth, silence):
                event = parse_push_line(line)
                if isinstance(event, PushProgress):
                    yield event
                elif isinstance(event, Exception):
                    raise event
                elif event:
                    digest = str(event)
        except APIError as error:
            raise classify_push_error(_explanation(error)) from None
        except _SILENT:
            raise silent_registry(reference, silence) from None
        except _BROKEN:
            raise EngineLost("The Docker engine went away during the push.", hint="Start the build again.") from None
        if not digest:
            raise EngineRefused(
                f"The engine ended the push of {reference} without naming the digest that the registry recorded.",
                hint="See whether the tag is in the registry; the engine's own log may say more.",
            )
        return digest

    def pull_image(self, reference: str, *, silence: float = PULL_SILENCE_SECONDS) -> Generator[str, None, None]:
        parsed = parse_reference(reference).or_latest()
        try:
            params = {"fromImage": str(parsed.repository), "tag": str(parsed.digest or parsed.tag)}
            for line in self._transfer(self._api._url("/images/create"), params, None, silence):
                if "error" in line:
                    raise base_image_failure(str(line["error"]), clean(str(line["error"])).rstrip("."))
                yield "" if line.get("id") else clean(str(line.get("status", "")))
        except APIError as error:
            said = _explanation(error)
            raise base_image_failure(said, clean(said)) from None
        except _SILENT:
            raise base_image_failure(
                "i/o timeout", f"nothing was heard of the pull of {reference} for {silence:.0f} s"
            ) from None
        except _BROKEN:
            raise EngineLost("The Docker engine went away during a pull.", hint="Start the build again.") from None

    def _transfer(
        self, url: str, params: Mapping[str, str], auth: RegistryAuth | None, silence: float
    ) -> Iterator[dict[str, Any]]:
        """What the engine tells of a transfer with a registry, as it tells it."""
        # The client's own ``push`` and ``pull`` have no time-out of their own.
        headers = {"X-Registry-Auth": encode_header(_auth_config(auth))}
        answer = self._api._post(url, params=params, headers=headers, stream=True, timeout=silence)
        self._api._raise_for_status(answer)
        yield from self._api._stream_helper(answer, decode=True)


def _auth_config(auth: RegistryAuth | None) -> dict[str, str]:
    # Never None: docker-py would look into ~/.docker/config.json for a login that nobody gave to Caisson. Engine 20.10
    # answers 400 to a push without the header, so "none" is said as an empty object.
    if auth is None:
        return {}
    return {"username": auth.username, "password": auth.password, "serveraddress": auth.registry}


def _builder_gone() -> EngineLost:
    return EngineLost("The builder ended while a step ran in it.", details={"builder_gone": True})


def _explanation(error: APIError) -> str:
    text = error.explanation if isinstance(error.explanation, str) else str(error)
    return text.strip().rstrip(".")[:500]
