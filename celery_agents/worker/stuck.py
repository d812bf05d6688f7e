"""Notice that this worker is stuck: it could fetch from a queue that is not empty, and does not. Reconnect, or exit.

Workers have been seen to stay so until somebody restarts them, after their connection to the broker blinked. The
process is alive and answers ``celery inspect ping``, but its consumer is gone, or reads from a socket to which nobody
writes, or waits for room that lost acknowledgements should have made. Instead of knowing each of these ways, a
``Lookout`` looks for what they have in common.

When it has been so for ``agents_stuck_after`` seconds the worker reconnects, as after a lost connection, but what runs
goes on. If that does not help within the same time, it exits with a code that is not 0: its supervisor starts another
one, and the broker gives its messages back.

``celery -A app agents ping`` asks for what is known here, by the inspect command ``agents_health``.
"""

from __future__ import annotations

import threading
import warnings
from functools import partial
from typing import Any

from celery import Celery, bootsteps
from celery.utils.functional import noop
from celery.worker import state
from celery.worker.control import inspect_command

from celery_agents.settings import Settings
from celery_agents.task import StageTask
from celery_agents.worker.depths import DRIVERS
from celery_agents.worker.keeping import keep_what_runs
from celery_agents.worker.lookout import Lookout
from celery_agents.worker.visibility import VisibilityRenewal


def on_worker_init(sender: Any, **_: Any) -> None:
    """Watch a worker that has agents."""
    if any(isinstance(task, StageTask) for task in sender.app.tasks.values()):
        install(sender.app)


def install(app: Celery) -> None:
    """Watch the workers of *app*."""
    app.steps["consumer"].add(StuckDetection)


@inspect_command()  # type: ignore[untyped-decorator]  # celery ships no types
def agents_health(panel: Any) -> dict[str, Any]:
    """Queues that are consumed, and whether the worker is stuck."""
    c = panel.consumer
    queues = [queue.name for queue in c.task_consumer.queues] if c.task_consumer else []
    lookout = getattr(c, "lookout", None)
    return {
        "queues": sorted(queue for queue in queues if c.task_consumer.consuming_from(queue)),
        "is_watched": lookout is not None,
        **(lookout.health() if lookout else {}),
    }


# ----------------------------------------------------------------------------------------------------- in the consumer

#: Seconds that a Redis connection has to answer what it was asked before it was given up: that may be a message.
LAST_ANSWER = 2.0

#: How Celery leaves alone what runs when a connection is lost, and lets the other slots have work at once: what runs is
#: counted among the messages of the new connection (see ``visibility.adopt``), and must not be taken off twice.
SPARING = {
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_prefetch_count_reduction": False,
}


class StuckDetection(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Has a ``Lookout`` for this consumer, and loses its connection when the lookout asks for that."""

    requires = (VisibilityRenewal,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        c.lookout = None
        self._stuck_after = Settings.of(c.app).stuck_after
        self._in_loop = partial(self._reconnect_if_asked, c)
        self._usual: dict[str, bool] = {}  # the settings in SPARING, while a connection is replaced
        self.enabled = self._stuck_after > 0 and c.conninfo.get_transport_cls().driver_type in DRIVERS
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """Watch this connection, the first one or one that replaces a lost one."""
        if threading.current_thread() is not threading.main_thread():
            return  # a worker inside a test or another program, which it must not end
        if c.lookout is None:
            c.lookout = Lookout(c, self._stuck_after)
            c.lookout.start()
            if c.hub is None:
                self._hook_into_synloop(c)
        if self._usual:
            self._spare_no_longer(c)
        c.lookout.note_connection()

    def register_with_event_loop(self, c: Any, hub: Any) -> None:  # noqa: ARG002  (Celery calls it so)
        """Be called at each turn of the event loop, which takes an OSError for the loss of its connection."""
        hub.on_tick.add(self._in_loop)

    def stop(self, c: Any) -> None:
        """Know that the connection is gone: Celery makes another one, or the worker stops."""
        if c.lookout is not None:
            c.lookout.note_disconnection()

    terminate = stop

    def shutdown(self, c: Any) -> None:
        """Watch no more."""
        if c.lookout is not None:
            c.lookout.stop()

    def _hook_into_synloop(self, c: Any) -> None:
        """The same where there is no hub (gevent, eventlet): celery.worker.loops.synloop calls this at each turn."""
        perform = c.perform_pending_operations

        def perform_and_reconnect() -> None:
            perform()
            self._in_loop()

        c.perform_pending_operations = perform_and_reconnect

    def _reconnect_if_asked(self, c: Any) -> None:
        if c.lookout is None or not c.lookout.take_request() or c.blueprint.state != bootsteps.RUN:
            return
        if state.active_requests and not self._spare_what_runs(c):
            # The broker would give what runs to somebody else. A new consumer on the same channel leaves it alone, and
            # helps as well unless it is the connection that is broken.
            c.task_consumer.cancel()
            c.task_consumer.consume()
            return
        c.lookout.note_disconnection()
        # A message that still comes is not begun: it is put back with all that is unacknowledged.
        c.task_consumer.on_message = noop
        _bound_last_reads(c.connection)
        raise ConnectionResetError("the worker is stuck, see above")

    def _spare_what_runs(self, c: Any) -> bool:
        """Have what runs go on while the connection is replaced; return whether that is possible.

        A connection that was lost may have been so for long, and others have been given what it brought: then
        ``celeryconfig.py`` has Celery stop that here. This one is replaced within a moment.
        """
        if c.hub is None or c.visibility_renewer is None:
            return False
        if c.app.conf.worker_cancel_long_running_tasks_on_connection_loss:
            keep_what_runs(c, c.task_consumer.channel.qos, c.visibility_renewer.kept)
            warnings.filterwarnings("ignore", "\nIn Celery 5.1")  # Celery would advise to set what is set
        self._usual = self._usual or {name: c.app.conf[name] for name in SPARING}
        c.app.conf.update(SPARING)  # until the next connection is there, however many attempts that takes
        return True

    def _spare_no_longer(self, c: Any) -> None:
        """Have Celery do from now on as the user wants it when the connection is lost.

        ``VisibilityRenewal`` has just made what runs belong to the new connection.
        """
        c.app.conf.update(self._usual)
        self._usual = {}
        if c.app.conf.worker_cancel_long_running_tasks_on_connection_loss:
            # What ``keep_what_runs`` sets: what is stopped then must not be kept, for nobody would acknowledge it.
            vars(c.task_consumer.channel.qos).pop("restore_unacked", None)


def _bound_last_reads(connection: Any) -> None:
    """Have kombu wait a bounded time for a last answer from a socket to which maybe nobody writes any more.

    Celery 5.7 does so when a connection is lost (celery.utils.threads.bound_open_broker_sockets), 5.6 waits for ever.
    """
    for channel in list(getattr(connection.transport, "channels", None) or ()):
        sock = getattr(getattr(channel, "_in_poll", None), "_sock", None)  # kombu.transport.redis.Channel
        if sock is not None:
            sock.settimeout(LAST_ANSWER)
