"""Look at this worker every few seconds; where it is stuck, ask its event loop to reconnect, or end the worker.

It is a thread, and has a connection of its own to the broker, because the event loop may be what is stuck.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from celery import bootsteps
from celery.platforms import EX_FAILURE
from celery.signals import worker_shutting_down
from celery.utils.functional import noop
from celery.utils.log import get_logger
from celery.worker import state

from celery_agents.redaction import redact
from celery_agents.worker.depths import Depths
from celery_agents.worker.slots import Fetched, has_free_slots
from celery_agents.worker.suspicion import Look, Reaction, Suspicion

logger = get_logger(__name__)

#: Looks within ``agents_stuck_after`` seconds at least, and the most seconds between two of them.
LOOKS = 6
LONGEST_INTERVAL = 5.0
#: Seconds that the broker has to tell how many messages wait.
ASK_TIMEOUT = 2.0
#: Seconds that Celery pauses at most between two attempts to connect (kombu.Connection.ensure_connection).
LONGEST_PAUSE = 30.0
#: Seconds that a stuck worker has to begin to shut down, and again to be gone when nothing runs any more.
SHORTEST_GRACE, LONGEST_GRACE = 5.0, 30.0
#: Exit code of a worker that did not shut down by itself (EX_SOFTWARE of sysexits.h).
EXIT_HARD = 70

#: RabbitMQ gives all messages of such a queue to one of its consumers, and the others wait their turn.
SINGLE_CONSUMER = "x-single-active-consumer"


def look_interval(stuck_after: float) -> float:
    """Return the seconds between two looks."""
    return min(stuck_after / LOOKS, LONGEST_INTERVAL)


class Lookout:
    """A thread that looks at this worker every few seconds, and reacts when it is stuck."""

    def __init__(self, c: Any, stuck_after: float) -> None:
        self._c = c
        self._interval = look_interval(stuck_after)
        self._grace = min(max(stuck_after, SHORTEST_GRACE), LONGEST_GRACE)
        looks, patience = (math.ceil(seconds / self._interval) for seconds in (stuck_after, LONGEST_PAUSE))
        self._suspicion = Suspicion(looks, patience)
        self._fetched = Fetched()
        self._depths = Depths(ASK_TIMEOUT)
        self._waiting: Mapping[str, int] = {}
        self._connections = self._seen_connection = 0
        self._is_connected = False
        self._is_asked_to_reconnect = False
        self._looks = 0
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stuck-detection", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def note_connection(self) -> None:
        """Begin anew: the consumer has another connection."""
        self._connections += 1
        self._is_connected = True
        self._is_asked_to_reconnect = False

    def note_disconnection(self) -> None:
        """Know that the consumer has no connection at present."""
        self._is_connected = False
        self._is_asked_to_reconnect = False

    def take_request(self) -> bool:
        """Return whether the event loop is to reconnect; it is said once."""
        is_asked, self._is_asked_to_reconnect = self._is_asked_to_reconnect, False
        return is_asked

    def health(self) -> dict[str, Any]:
        """Return what is known, as JSON."""
        return {
            # What was fetched since the latest look has ended it.
            "is_stuck": self._suspicion.is_stuck and self._fetched.number == self._suspicion.fetched,
            "looks": self._looks,
            "idle_for": round(self._fetched.seconds_ago, 1),
            "waiting": dict(self._waiting),
        }

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            if self._c.blueprint.state != bootsteps.RUN:
                continue  # it is shutting down
            reaction = self._suspicion.judge(self._look())
            if reaction is Reaction.RECONNECT:
                self._ask_to_reconnect()
            elif reaction is Reaction.EXIT:
                self._exit()
        self._depths.close()

    def _look(self) -> Look:
        connection = self._connections
        if connection != self._seen_connection:
            self._depths.close()  # the new one may lead to another broker
            self._seen_connection = connection
        could_fetch, self._waiting = self._see()
        self._looks += 1
        return Look(
            fetched=self._fetched.number,
            has_free_slots=could_fetch,
            waiting=frozenset(self._waiting),
            connection=connection,
            is_connected=self._is_connected,
        )

    def _see(self) -> tuple[bool, Mapping[str, int]]:
        """Return whether a slot is free, and how many messages wait in those of the queues that are not empty."""
        try:
            depths = self._depths.ask(self._queues(), self._c.connection or self._c.conninfo)
            seen = has_free_slots(self._c, self._fetched), {name: n for name, n in depths.items() if n}
        except Exception as error:  # noqa: BLE001  (whatever a network and a client library come up with)
            self._note_failure(error)
            return False, {}
        self._failures = 0
        return seen

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == LOOKS:  # fewer are a broker that blinks, which the consumer tells of
            reason = f"{type(error).__name__}: {redact(str(error))}"
            logger.warning("Whether this worker is stuck cannot be seen (%s); trying on.", reason)

    def _queues(self) -> list[str]:
        """Return the queues that this worker is to consume from, at present, whatever its consumer does."""
        queues = list(self._c.app.amqp.queues.consume_from.values())
        return [queue.name for queue in queues if not (queue.queue_arguments or {}).get(SINGLE_CONSUMER)]

    def _complaint(self) -> str:
        waiting = ", ".join(f"{number} in queue {name!r}" for name, number in self._waiting.items())
        return (
            "This worker is stuck: it has free slots and has fetched nothing for "
            f"{self._fetched.seconds_ago:.0f} s, while messages wait ({waiting})."
        )

    def _ask_to_reconnect(self) -> None:
        logger.error("%s It reconnects.", self._complaint())
        self._is_asked_to_reconnect = True
        if self._c.hub is not None:
            self._c.hub.call_soon(noop)  # wakes it, since kombu 5.7

    def _exit(self) -> None:
        logger.critical(
            "%s Reconnecting does not help: it exits with code %d.", self._complaint(), EX_FAILURE
        )
        # As Celery's handler of SIGTERM does (celery.apps.worker): agents end after the agent task that they are on.
        worker_shutting_down.send(sender=self._c.hostname, sig="SIGTERM", how="Warm", exitcode=EX_FAILURE)
        state.should_stop = EX_FAILURE
        self._end_if_it_hangs()

    def _end_if_it_hangs(self) -> None:
        """Wait for the end of the process, which ends this thread too; bring it about where it does not come."""
        latest = time.monotonic() + self._grace
        while time.monotonic() < latest:
            time.sleep(self._grace / 50)
            if self._c.blueprint.state != bootsteps.RUN and state.active_requests:
                latest = time.monotonic() + self._grace  # it shuts down, and waits for what runs
        logger.critical(
            "This worker did not shut down within %g s: it is ended with code %d.", self._grace, EXIT_HARD
        )
        os._exit(EXIT_HARD)
