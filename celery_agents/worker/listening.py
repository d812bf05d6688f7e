"""Let those who ask for one outcome now know which queues this worker listens to: a heartbeat in the ledger.

It is a thread, because a worker that is busy listens as well: with a pool that has no processes nor threads of its own
the event loop stands still while an agent runs.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from celery import Celery, bootsteps
from celery.utils.log import get_logger

from celery_agents.errors import LedgerError
from celery_agents.results import ledgers_of
from celery_agents.task import StageTask

logger = get_logger(__name__)

#: Seconds between two heartbeats, and for which one counts: so long a worker that was killed is still asked.
INTERVAL, COUNTS_FOR = 5.0, 16.0
#: Seconds between two looks whether the worker consumes from other queues than before.
LOOK = 0.5
#: Seconds that a worker which stops waits until nobody asks it any more.
LAST_WORD = 2.0


def on_worker_init(sender: Any, **_: Any) -> None:
    """Keep a heartbeat in a worker that has agents."""
    if any(isinstance(task, StageTask) for task in sender.app.tasks.values()):
        sender.app.steps["consumer"].add(Listening)


class Listening(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Keeps a heartbeat as long as the consumer has a connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        self._heartbeat: Heartbeat | None = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """Begin, the first time or with a connection that replaces a lost one."""
        self._heartbeat = Heartbeat(c)
        self._heartbeat.start()

    def stop(self, c: Any) -> None:  # noqa: ARG002  (Celery calls it so)
        """Listen no more: the connection is lost, or the worker stops and finishes what it has begun."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    terminate = stop


class Heartbeat:
    """A thread that says again and again which queues a worker listens to, and at last that it listens no more."""

    def __init__(self, c: Any) -> None:
        self._c = c
        self._app: Celery = c.app
        self._told: frozenset[str] = frozenset()
        self._is_failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; return when nobody asks this worker any more, or soon."""
        self._stopping.set()
        self._thread.join(LAST_WORD)

    def _run(self) -> None:
        told_at = float("-inf")
        while not self._stopping.is_set():
            queues = self._queues()
            if queues != self._told or time.monotonic() - told_at >= INTERVAL:
                self._tell(queues)
                told_at = time.monotonic()
            self._stopping.wait(LOOK)
        self._tell(frozenset())

    def _queues(self) -> frozenset[str]:
        consumer = self._c.task_consumer
        names = [queue.name for queue in tuple(consumer.queues)] if consumer else []
        return frozenset(name for name in names if consumer.consuming_from(name))

    def _tell(self, queues: frozenset[str]) -> None:
        gone, self._told = self._told - queues, queues
        try:
            for ledger in ledgers_of(self._app):
                for queue in queues:
                    ledger.listen(queue, self._c.hostname, COUNTS_FOR)
                for queue in gone:
                    ledger.stop_listening(queue, self._c.hostname)
        except LedgerError as error:
            if not self._is_failing:
                logger.warning("Nobody is told that this worker listens; queries may pass it by: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False
