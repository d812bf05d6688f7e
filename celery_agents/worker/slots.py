"""What this worker has fetched, what of that it still holds, and whether it could fetch more."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakValueDictionary

from celery import signals
from celery.worker import state
from celery.worker.request import Request

#: Sent for a message that a worker has fetched, whatever becomes of it.
_FETCHED = (signals.task_received, signals.task_revoked, signals.task_rejected, signals.task_unknown)


class Fetched:
    """Counts the messages that this worker fetches, from now on, and remembers those that are not done with."""

    def __init__(self) -> None:
        self.number = 0
        self._latest = time.monotonic()
        # Weakly: only what Celery itself still has to do something with counts as held. kombu's own list would go on
        # counting a message whose acknowledgement got lost with a connection, and that is one way to be stuck.
        self._requests: WeakValueDictionary[int, Request] = WeakValueDictionary()
        for signal in _FETCHED:
            signal.connect(self._note, dispatch_uid="celery_agents.worker.slots", weak=False)

    @property
    def seconds_ago(self) -> float:
        """Seconds since the latest message."""
        return time.monotonic() - self._latest

    def unacknowledged(self, channel: Any) -> int:
        """Return how many messages that came by *channel* are held and not acknowledged.

        Also those that wait for their time (``eta``, ``countdown``, a retry) or for a rate limit.
        """
        # Copied in one step: other threads must not iterate over what the worker adds to.
        alive = [request for each in self._requests.valuerefs() if (request := each()) is not None]
        return sum(1 for request in alive if not request.acknowledged and request.message.channel is channel)

    def _note(self, request: Any = None, **_: Any) -> None:
        self.number += 1
        self._latest = time.monotonic()
        if isinstance(request, Request):
            self._requests[self.number] = request


def has_free_slots(c: Any, fetched: Fetched) -> bool:
    """Whether the worker of consumer *c* could run another message, and the prefetch limit lets it fetch one."""
    # A pool that scales has as many as it may grow to. The solo pool has one, and fetches nothing while it works.
    slots = c.controller.max_concurrency or c.pool.num_processes
    if max(len(state.active_requests), len(state.reserved_requests)) >= slots:
        return False
    limit = prefetch_limit(c)
    return limit == 0 or fetched.unacknowledged(c.task_consumer.channel) < limit


def prefetch_limit(c: Any) -> int:
    """Return how many unacknowledged messages consumer *c* may hold; 0: as many as there are.

    Celery raises ``c.qos`` by each message that waits for its time. That reaches the channels on which kombu counts by
    itself (Redis) and RabbitMQ, but not where the limit is a consumer's own (quorum queues).
    """
    counted = getattr(c.task_consumer.channel, "qos", None)  # kombu.transport.virtual.Channel.qos
    if counted is not None:
        return int(counted.prefetch_count)
    # celery.worker.consumer.Consumer.qos_global, since 5.7
    return int(c.initial_prefetch_count if getattr(c, "qos_global", None) is False else c.qos.value)
