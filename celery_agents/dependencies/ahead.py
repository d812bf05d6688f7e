"""Media are fetched ahead: while one agent runs, a few threads fetch and decode what the next agent tasks need.

Only what is listed in ``MEDIA`` is called ahead; the user's own functions stay where agents are called. A ``Fetch`` is
among the values of its agent task, where ``resolve`` finds it by the plan of the dependency, and calls it in place of
the function. What no thread has begun by then is done there and then, as it would be without all this. So whoever
waits, waits for the network and never for a thread.

What has begun and was not asked for yet is bounded: for each delivery in number, and for the process in bytes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias

from celery_agents.dependencies import fetchers
from celery_agents.dependencies.callables import path_of
from celery_agents.dependencies.plan import Plan
from celery_agents.work import Work

logger = logging.getLogger(__name__)

STORAGE_ITEM = "encord.storage.StorageItem"
#: The functions that are called ahead, where they take a storage item and nothing else.
MEDIA = frozenset(
    {
        "celery_agents.dependencies.media.dep_asset",
        "celery_agents.dependencies.media.dep_single_frame",
        "celery_agents.dependencies.streams.dep_video_iterator",
        "celery_agents.dependencies.streams.dep_video_sampler",
        "encord_agents.tasks.dependencies.dep_asset",
        "encord_agents.tasks.dependencies.dep_single_frame",
        "encord_agents.tasks.dependencies.dep_video_iterator",
        "encord_agents.tasks.dependencies.dep_video_sampler",
    }
)

#: Media of one delivery that are under way or ready. Twice the threads, so that these go on while one is slow.
MOST_AHEAD = 2 * fetchers.THREADS
#: Bytes to reckon with for a file where Encord does not tell its size.
ASSUMED_BYTES = 8 * 1024**2

#: Told of agent tasks that are loaded, or have failed; by any thread, and whichever comes first.
Fetcher: TypeAlias = Callable[[Sequence[Work]], None]
#: What a dependency gives, and the context manager that cleans up after it.
Medium: TypeAlias = tuple[Any, AbstractContextManager[Any]]


@contextmanager
def fetching(plan: Plan, works: Sequence[Work], memory: int) -> Iterator[Fetcher]:
    """Fetch media ahead for one delivery, once the given function is told that agent tasks are loaded.

    At the end what nobody has asked for is cleaned up, and what is under way then as soon as it is here.

    Args:
        plan: The agent's.
        works: The agent tasks in the order of their turns, which is also that of fetching.
        memory: Bytes that what is fetched ahead in this process may take; 0 fetches nothing ahead.
    """
    media = list(dict.fromkeys(_media(plan))) if memory else []
    if not media:
        yield lambda _: None
        return
    delivery = _Delivery(media, works, memory)
    try:
        yield delivery.fetch
    finally:
        delivery.close()


def leave(values: Mapping[Any, Any]) -> None:
    """Clean up what was fetched for an agent task whose agent will not be called."""
    for value in values.values():
        if isinstance(value, Fetch):
            value.leave()


def _media(plan: Plan) -> Iterator[Plan]:
    sources = [argument.source for argument in plan.arguments]
    if path_of(plan.function) in MEDIA and sources == [STORAGE_ITEM]:
        yield plan
    for source in sources:
        if isinstance(source, Plan):
            yield from _media(source)


class Fetch(AbstractContextManager[Any]):
    """The call of one dependency for one agent task, which may have begun ahead.

    Args:
        plan: The dependency.
        item: Its storage item.
        take: Hands over what has begun, once; None where nothing has, and from then on nothing will.
    """

    def __init__(self, plan: Plan, item: Any, take: Callable[[Fetch], Future[Medium] | None]) -> None:
        self.bytes = _bytes_of(item)
        self.is_taken = False
        #: Seconds that its agent waited; None where it was not fetched ahead.
        self.waited: float | None = None
        self._is_generator = plan.is_generator
        self._call = partial(plan.call, item)
        self._take = take
        self._context: AbstractContextManager[Any] = nullcontext()

    def __call__(self, **_: Any) -> Any:
        """Do as ``plan.call``: return the value, or for a generator function the context manager that gives it."""
        return self if self._is_generator else self.__enter__()

    def __enter__(self) -> Any:
        future = self._take(self)
        value, self._context = self._obtain() if future is None else self._wait(future)
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        return self._context.__exit__(kind, error, where)

    def begin(self, future: Future[Medium]) -> None:
        """Fetch it ahead."""
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(self._obtain())
            except BaseException as error:  # noqa: BLE001  (it is raised where the value is asked for)
                future.set_exception(error)

    def leave(self) -> None:
        """Clean up what nobody has asked for, and nobody will."""
        future = self._take(self)
        if future is not None and not future.cancel():
            future.add_done_callback(_clean_up)

    def _wait(self, future: Future[Medium]) -> Medium:
        if future.cancel():  # it was to begin, and no thread has come to it
            return self._obtain()
        begun_at = time.monotonic()
        try:
            return future.result()
        except BaseException:
            future.add_done_callback(_clean_up)  # what was raised may be an interruption of this thread
            raise
        finally:
            self.waited = time.monotonic() - begun_at

    def _obtain(self) -> Medium:
        called = self._call()
        return (called.__enter__(), called) if self._is_generator else (called, nullcontext())


def _clean_up(future: Future[Medium]) -> None:
    if future.exception() is None:
        _, context = future.result()
        context.__exit__(None, None, None)


def _bytes_of(item: Any) -> int:
    """Return how many bytes a storage item may take: its file, and one frame as pixels."""
    return (item.file_size or ASSUMED_BYTES) + 3 * (item.width or 0) * (item.height or 0)


class _Delivery:
    """What is fetched ahead for one delivery."""

    def __init__(self, media: Sequence[Plan], works: Sequence[Work], memory: int) -> None:
        self._media = media
        self._memory = memory
        self._fetchers = fetchers.of_process()
        # Not the very first: it is asked for at once, by a thread that would only wait.
        self._order = deque(works[1:])
        self._loaded: dict[Work, list[Fetch]] = {}  #: of those in the order
        self._next: deque[Fetch] = deque()
        self._begun: dict[Fetch, Future[Medium]] = {}  #: and not taken yet
        self._fetches: list[Fetch] = []
        self._is_closed = False
        self._lock = threading.Lock()

    def fetch(self, works: Sequence[Work]) -> None:
        """Fetch the media of *works* when it is their turn."""
        with self._lock:
            self._loaded |= {work: self._fetches_of(work) for work in works}
            while self._order and self._order[0] in self._loaded:
                self._next.extend(self._loaded.pop(self._order.popleft()))
            self._begin_next()

    def _fetches_of(self, work: Work) -> list[Fetch]:
        if not work.is_open:
            return []
        fetches = [Fetch(plan, work.values[STORAGE_ITEM], self._take) for plan in self._media]
        work.values.update(zip(self._media, fetches, strict=True))
        self._fetches += fetches
        return fetches

    def close(self) -> None:
        """Begin no more, and clean up what nobody has asked for."""
        self._is_closed = True
        for fetch in self._fetches:
            fetch.leave()
        waited = [fetch.waited for fetch in self._fetches if fetch.waited is not None]
        logger.debug(
            "%d of %d media were fetched ahead; agents waited %.3f s for them.",
            len(waited),
            len(self._fetches),
            sum(waited),
        )

    def _take(self, fetch: Fetch) -> Future[Medium] | None:
        with self._lock:
            fetch.is_taken = True
            future = self._begun.pop(fetch, None)
            self._fetchers.give_back(fetch)
            self._begin_next()
        return future

    def _begin_next(self) -> None:
        while self._next and len(self._begun) < MOST_AHEAD and not self._is_closed:
            fetch = self._next.popleft()
            if fetch.is_taken:
                continue
            if not self._fetchers.take_room(fetch, fetch.bytes, self._memory):
                self._next.appendleft(fetch)
                return
            future: Future[Medium] = Future()
            self._begun[fetch] = future
            self._fetchers.submit(partial(copy_context().run, fetch.begin, future))
