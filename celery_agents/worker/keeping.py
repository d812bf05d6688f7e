"""When the connection to the broker is lost: keep what runs on, and adopt it again by the next connection.

Celery's pools go on with what they have begun, and acknowledge it when there is a connection again. kombu, for Redis,
gives it to somebody else meanwhile. What is used of kombu here is in the layout that ``visibility`` checks first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from celery import bootsteps
from celery.worker import state


@dataclass(slots=True)
class Kept:
    """What runs on while the connection that it came by is lost."""

    messages: dict[str, Any] = field(default_factory=dict)  #: by delivery tag
    jobs: dict[int, Any] = field(default_factory=dict)  #: what the prefork pool waits for, by number


def survives_connections(c: Any) -> bool:
    """Whether tasks run on when the connection is lost, and their acknowledgements wait for the next one.

    Without an event loop (gevent, eventlet) Celery tries to acknowledge at once, and never again.
    """
    if c.hub is None or c.app.conf.worker_cancel_long_running_tasks_on_connection_loss:
        return False
    return not c.pool.uses_semaphore or isinstance(_jobs_of(c.pool), dict)


def _jobs_of(pool: Any) -> Any:
    # billiard.pool.Pool._cache, in celery.concurrency.prefork.TaskPool; other pools have nothing like it.
    return getattr(getattr(pool, "_pool", None), "_cache", None)


def keep_what_runs(c: Any, qos: Any, kept: Kept) -> None:
    """Have messages whose tasks run on put into *kept* when the connection is lost, not back into their queues.

    kombu puts back all that a lost connection had delivered, as soon as it can connect again: the tasks that still run
    here would run once more, at the same time.
    """
    # kombu.transport.redis.QoS.restore_unacked, called when a channel closes
    restore_unacked = qos.restore_unacked

    def restore_what_does_not_run(*args: Any, **kwargs: Any) -> Any:
        if c.blueprint.state == bootsteps.RUN:  # else the worker stops, and what still runs is not waited for
            kept.jobs.update(_jobs_of(c.pool) or {})
            for request in _running(c.pool):
                tag = request.message.delivery_tag
                if not request.acknowledged and qos._delivered.pop(tag, None):  # noqa: SLF001
                    kept.messages[tag] = request.message
        return restore_unacked(*args, **kwargs)

    qos.restore_unacked = restore_what_does_not_run


def _running(pool: Any) -> Iterable[Any]:
    """Return the requests that run, or will whatever happens to the connection."""
    # Prefork takes as many as it has processes, and forgets the others with the connection. Other pools have queues of
    # their own, which nothing can be taken from.
    if pool.uses_semaphore:
        return tuple(state.active_requests)
    return {*state.active_requests, *state.reserved_requests}


def adopt(kept: Kept, channel: Any, pool: Any) -> None:
    """Make *channel* the one by which *kept* was delivered and will be acknowledged."""
    for tag, message in list(kept.messages.items()):
        message.channel = channel
        channel.qos._delivered[tag] = message  # noqa: SLF001
        del kept.messages[tag]
    # Celery 5.6 lets the prefork pool forget what it runs (celery.concurrency.asynpool.AsynPool.flush): it would never
    # learn that it has ended, and the message would be held for ever.
    for number, job in kept.jobs.items():
        if job._accepted and not job.ready():  # noqa: SLF001  # billiard.pool.ApplyResult: some process has begun it
            _jobs_of(pool).setdefault(number, job)
            _keep_busy(pool, job)
    kept.jobs.clear()


def _keep_busy(pool: Any, job: Any) -> None:
    # Celery 5.6 takes every process for idle then, and writes the next message to one that is not: it would wait there
    # for the end of the first, while other processes and workers are idle.
    busy = getattr(pool._pool, "_busy_workers", None)  # noqa: SLF001  # celery.concurrency.asynpool.AsynPool
    process = getattr(job, "_write_to", None) or getattr(job, "_scheduled_for", None)
    if busy is not None and process is not None and process._is_alive():  # noqa: SLF001
        busy.add(process.inqW_fd)
