"""What was read a moment ago, for all who ask for it now: one asks, the others wait for the same answer.

Nobody is asked while nobody reads. What is a little old is given at once while a new one is fetched beside it, so that
of many readers none waits; what is older than that is waited for.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True)
class _Kept(Generic[V]):
    value: V
    fresh_until: float
    usable_until: float


class ReadCache(Generic[V]):
    """Answers by key, the least recently used dropped first. For any number of threads."""

    def __init__(
        self, seconds: Callable[[V], float], *, most: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``seconds`` is how long a value counts as new; for as long again it is given while a new one is fetched.

        A fetch that takes long is repeated less often: at most a fifth of the time goes into one key.
        """
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Kept[V]] = OrderedDict()
        self._fetches: dict[Hashable, Future[V]] = {}
        self._beside = ThreadPoolExecutor(max_workers=2, thread_name_prefix="read-cache")

    def get(self, key: Hashable, fetch: Callable[[], V]) -> V:
        """The value, by ``fetch`` where there is none that is new enough; raises what that raises."""
        with self._lock:
            now = self._clock()
            kept = self._kept.get(key)
            if kept is not None and now < kept.usable_until:
                self._kept.move_to_end(key)
                if now >= kept.fresh_until and key not in self._fetches:
                    self._beside.submit(self._fetch, key, fetch, self._begin(key))
                return kept.value
            underway = self._fetches.get(key)
            future = underway or self._begin(key)
        if underway is None:
            self._fetch(key, fetch, future)
        return future.result()

    def _begin(self, key: Hashable) -> Future[V]:
        self._fetches[key] = future = Future[V]()
        return future

    def drop(self, key: Hashable) -> None:
        """Forget a value that is known to be old, and whatever is being fetched for it."""
        with self._lock:
            self._kept.pop(key, None)
            self._fetches.pop(key, None)

    def close(self) -> None:
        self._beside.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, key: Hashable, fetch: Callable[[], V], future: Future[V]) -> None:
        begun = self._clock()
        try:
            value = fetch()
        except BaseException as error:
            with self._lock:
                if self._fetches.get(key) is future:
                    del self._fetches[key]
            future.set_exception(error)
            return
        now = self._clock()
        seconds = max(self._seconds(value), 5 * (now - begun))
        with self._lock:
            # Dropped meanwhile, it may tell of before whatever made it old.
            if self._fetches.get(key) is future:
                del self._fetches[key]
                self._kept[key] = _Kept(value, now + seconds, now + 2 * seconds)
                self._kept.move_to_end(key)
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        future.set_result(value)
