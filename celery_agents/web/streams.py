"""Follow messages as they go on: one look at a time for all that are followed, whoever follows them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from celery_agents.backends import backend_of, is_old_news, read
from celery_agents.errors import SetupError
from celery_agents.results import AgentResult
from celery_agents.snapshots import Snapshot, snapshot_of
from celery_agents.web.calls import Blocking
from celery_agents.web.served import Served

logger = logging.getLogger(__name__)

#: Seconds between two looks: a message tells of its progress twice a second at most.
LOOK_SECONDS = 0.25
#: The same while the result backend cannot be read.
OUTAGE_SECONDS = 2.0
#: Streams at a time in one process.
MOST_STREAMS = 1_000


class Follower:
    """One stream: it is told what is new, and of what comes too fast only the newest."""

    def __init__(self, latest: Snapshot) -> None:
        self._latest, self._has_news = latest, asyncio.Event()
        self._has_news.set()

    def tell(self, snapshot: Snapshot) -> None:
        """Tell of a snapshot, if there is anything new in it."""
        if _news(snapshot) != _news(self._latest):
            self._latest = snapshot
            self._has_news.set()

    async def next(self, patience: float) -> Snapshot | None:
        """Return what is new, or None after *patience* seconds without news."""
        try:
            await asyncio.wait_for(self._has_news.wait(), patience)
        except TimeoutError:
            return None
        self._has_news.clear()
        return self._latest


def _news(snapshot: Snapshot) -> tuple[Any, ...]:
    # An exception is another one each time it is read.
    return snapshot.state, snapshot.status, snapshot.progress, snapshot.completion


class Lookout:
    """Looks at every message that is followed, in one round trip, as long as any is.

    Args:
        served: Whose app's result backend is asked.
        blocking: Where it is asked.
    """

    def __init__(self, served: Served, blocking: Blocking) -> None:
        self._served, self._blocking = served, blocking
        self._followers: dict[str, list[Follower]] = {}
        self._latest: dict[str, tuple[AgentResult, Snapshot]] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody follows anything, so that nothing is looked at."""
        return not self._followers and (self._looking is None or self._looking.done())

    def admit(self) -> None:
        """Raise SetupError where there are too many streams already."""
        if sum(map(len, self._followers.values())) >= MOST_STREAMS:
            raise SetupError(
                f"There are {MOST_STREAMS:,} streams in this process already; ask now and then instead."
            )

    @asynccontextmanager
    async def follow(self, result: AgentResult, snapshot: Snapshot) -> AsyncIterator[Follower]:
        """Follow a message, of which *snapshot* was seen."""
        follower = Follower(snapshot)
        self._followers.setdefault(result.id, []).append(follower)
        self._latest.setdefault(result.id, (result, snapshot))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_again_and_again())
        try:
            yield follower
        finally:
            self._leave(result.id, follower)

    def _leave(self, message_id: str, follower: Follower) -> None:
        self._followers[message_id].remove(follower)
        if not self._followers[message_id]:
            del self._followers[message_id], self._latest[message_id]
        if not self._followers and self._looking is not None:
            self._looking.cancel()

    async def _look_again_and_again(self) -> None:
        is_out = False
        while True:
            await asyncio.sleep(OUTAGE_SECONDS if is_out else LOOK_SECONDS)
            seen = dict(self._latest)
            try:
                snapshots = await self._blocking(self._look, list(seen.values()))
            except SetupError as error:
                if not is_out:
                    logger.warning("Streams have no news until this is over: %s", error)
                is_out = True
                continue
            is_out = False
            for snapshot in snapshots:
                self._tell(snapshot)

    def _look(self, seen: Sequence[tuple[AgentResult, Snapshot]]) -> list[Snapshot]:
        """Look at messages that were seen before; in a thread."""
        backend = backend_of(self._served.app)
        largest = max((result.total or 1 for result, _ in seen), default=1)
        stored = read(backend, [result.id for result, _ in seen], size=largest)
        return [
            before
            if before.is_final or is_old_news(backend, each)
            else snapshot_of(result.id, each, total=result.total, seen=before.progress)
            for (result, before), each in zip(seen, stored, strict=True)
        ]

    def _tell(self, snapshot: Snapshot) -> None:
        for follower in self._followers.get(snapshot.id, ()):
            follower.tell(snapshot)
        if snapshot.id in self._latest:
            self._latest[snapshot.id] = self._latest[snapshot.id][0], snapshot


async def events(lookout: Lookout, result: AgentResult, heartbeat: float) -> AsyncIterator[str]:
    """Yield server-sent events: ``progress`` as it goes on, ``end`` when it has ended, and a comment now and then.

    Args:
        lookout: Who looks.
        result: Of the message, looked at before.
        heartbeat: Seconds without news after which a comment shows that the stream is alive, to proxies too.
    """
    assert result.latest is not None  # looked at before
    async with lookout.follow(result, result.latest) as follower:
        while True:
            snapshot = await follower.next(heartbeat)
            if snapshot is None:
                yield ": nothing new\n\n"
                continue
            yield event("end" if snapshot.is_final else "progress", snapshot.as_dict())
            if snapshot.is_final:
                return


def event(name: str, value: Any) -> str:
    """Return one server-sent event; JSON has no line ends, so one line of data is enough."""
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n"
