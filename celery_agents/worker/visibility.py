"""On Redis: keep the messages that this worker holds its own, and give those of a dead worker to somebody else soon.

Redis cannot see that a worker died. kombu therefore notes when each message was delivered and gives a message that was
not acknowledged within the *visibility timeout* to another worker. Stock, a task longer than that runs twice, so the
timeout is an hour and a killed worker's messages wait for an hour.

Here a thread says every few seconds that the messages which this worker holds (running, prefetched, waiting for their
ETA or retry) are still held. A short timeout is then safe, and is the default. The same thread looks for messages that
nobody renewed: kombu 5.6 does so only every 100 s, and not at all while the solo pool is busy.

It is a thread with a connection of its own because the worker's event loop stands still while the solo pool works, and
while a lost connection is being made anew. On other brokers nothing of this happens.

All that is mirrored from kombu's ``transport/redis.py`` is in ``_LAYOUT``, and checked before anything is changed.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from celery import Celery, bootsteps
from celery.utils.log import get_logger
from kombu.transport import virtual

from celery_agents.redaction import redact
from celery_agents.settings import Settings
from celery_agents.task import StageTask
from celery_agents.worker import taking
from celery_agents.worker.keeping import Kept, adopt, keep_what_runs, survives_connections
from celery_agents.worker.layouts import Layout, first_unknown

logger = get_logger(__name__)

#: Where the user has not set them. ``unacked_mutex_expire``: a worker killed while it gives back the messages of
#: another keeps everybody from doing so for as long; kombu's default is 300 s. Two at once do no harm, because kombu
#: gives each message back in a transaction.
DEFAULTS = {"visibility_timeout": 60, "unacked_mutex_expire": 10}

#: Renewals within one timeout: four in a row may fail before a message is given away.
RENEWALS_PER_TIMEOUT = 5

#: Seconds between two renewals at most. It bounds how long after the timeout a dead worker's messages come back.
LONGEST_INTERVAL = 5.0

#: Messages renewed by one command. A thousand take Redis about a millisecond, during which nobody else is served.
CHUNK = 1000


def on_worker_init(sender: Any, **_: Any) -> None:
    """Renew visibility in a worker that has agents."""
    if any(isinstance(task, StageTask) for task in sender.app.tasks.values()):
        install(sender.app)


def install(app: Celery) -> None:
    """Renew visibility in the workers of *app*."""
    app.steps["consumer"].add(VisibilityRenewal)


def renewal_interval(timeout: float) -> float:
    """Return the seconds between two renewals, and between two looks for messages that nobody renewed."""
    return min(timeout / RENEWALS_PER_TIMEOUT, LONGEST_INTERVAL)


def network_timeout(timeout: float) -> float:
    """Return the seconds after which a renewal is given up as hanging, to be tried again on a new connection."""
    return max(renewal_interval(timeout), 1.0)


# ---------------------------------------------------------------------------------------------- whether it can be done


def _qos_of(transport: Any) -> Any:
    """Return a QoS as a channel would make it; *transport* is a class."""
    qos = transport.Channel.QoS(None)
    qos._on_collect.cancel()  # noqa: SLF001  # it has nothing to put back when this process ends
    return qos


#: What is used of kombu.transport.redis and of kombu.transport.virtual.base, which it is built on, and what tells that
#: it still is what it was.
_LAYOUT: Layout = (
    ("Transport.channels", lambda transport: hasattr(transport, "channels")),
    ("Channel.state", lambda transport: isinstance(transport.Channel.state, property)),
    ("Channel.conn_or_acquire", lambda transport: callable(transport.Channel.conn_or_acquire)),
    ("Channel.unacked_index_key", lambda transport: isinstance(transport.Channel.unacked_index_key, str)),
    (
        "Channel.unacked_restore_limit",
        lambda transport: hasattr(transport.Channel, "unacked_restore_limit"),
    ),
    ("Channel.visibility_timeout", lambda transport: transport.Channel.visibility_timeout > 0),
    (
        "Channel.from_transport_options",
        lambda transport: DEFAULTS.keys() <= set(transport.Channel.from_transport_options),
    ),
    ("QoS._delivered", lambda transport: isinstance(_qos_of(transport)._delivered, dict)),  # noqa: SLF001
    ("QoS._dirty", lambda transport: isinstance(_qos_of(transport)._dirty, set)),  # noqa: SLF001
    ("QoS.restore_unacked", lambda transport: callable(transport.Channel.QoS.restore_unacked)),
    (
        "QoS.restore_visible",
        lambda transport: (
            {"num", "interval"} <= inspect.signature(transport.Channel.QoS.restore_visible).parameters.keys()
        ),
    ),
)


def unknown_symbol(transport: Any) -> str | None:
    """Return what in a transport class is not as this module knows it, or None."""
    symbol = first_unknown(_LAYOUT, transport)
    return symbol and f"{transport.__module__}.{symbol}"


def prepare(app: Celery) -> bool:
    """Return whether visibility is to be renewed; if so, set the transport options that the user has not.

    Only who consumes from queues looks at these options, so a worker is early enough: before it connects.
    """
    transport = app.connection_for_read().get_transport_cls()
    if transport.driver_type != "redis" or not Settings.of(app).visibility_renewal:
        return False
    if symbol := unknown_symbol(transport):
        logger.warning(
            "%s is not what it was, so the visibility of messages is not renewed and visibility_timeout stays as it "
            "is: tasks that take longer run more than once. A newer celery-agents may know this kombu.",
            symbol,
        )
        return False
    app.conf.broker_transport_options = DEFAULTS | app.conf.broker_transport_options
    return True


# ----------------------------------------------------------------------------------------------------- in the consumer


class VisibilityRenewal(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Renews the visibility of the messages that this worker's consumer holds."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        c.visibility_renewer = None
        self.enabled = prepare(c.app)
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """Renew what comes by this connection, the first one or one that replaces a lost one."""
        channel = c.task_consumer.channel
        taking.install(c.task_consumer)
        if c.visibility_renewer is None:
            c.visibility_renewer = Renewer(c.app, channel.visibility_timeout)
            c.visibility_renewer.start()
        if survives_connections(c):
            adopt(c.visibility_renewer.kept, channel, c.pool)
            keep_what_runs(c, channel.qos, c.visibility_renewer.kept)
        c.visibility_renewer.transport = c.connection.transport

    def stop(self, c: Any) -> None:
        """Go on: in a warm shutdown the pool has yet to finish what it runs, and a lost connection comes back."""

    terminate = stop

    def shutdown(self, c: Any) -> None:
        """Stop: the pool is done, and closing the connection puts what was prefetched back into the queues."""
        if c.visibility_renewer is not None:
            c.visibility_renewer.stop()


class Renewer:
    """A thread that says every few seconds which messages are still held, and looks for those that nobody renews."""

    def __init__(self, app: Celery, timeout: float) -> None:
        self.timeout = timeout  #: the visibility timeout
        self.transport: Any = None  #: of the consumer's connection: its channels know what has been delivered
        self.kept = Kept()  #: messages of a lost connection whose tasks run on
        self._app = app
        self._connection: Any = None
        self._channel: Any = None
        self._renewed_at = time.monotonic()
        self._is_cut_off = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visibility-renewal", daemon=True)

    @property
    def seconds_since_renewal(self) -> float:
        """Seconds for which nothing was renewed; above ``timeout`` others may have been given what is held here."""
        return time.monotonic() - self._renewed_at

    def start(self) -> None:
        """Begin to renew."""
        logger.info(
            "Held messages are renewed every %g s; visibility timeout %g s",
            renewal_interval(self.timeout),
            self.timeout,
        )
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._stopping.set()
        self._thread.join(network_timeout(self.timeout))

    def _run(self) -> None:
        while not self._stopping.wait(renewal_interval(self.timeout)):
            begun = time.monotonic()
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001  (whatever a network and a client library come up with)
                self._note_failure(error)
                self._disconnect()
            else:
                self._note_success(begun)
        self._disconnect()

    def _renew(self) -> None:
        if self._channel is None:
            self._connect()
        channel = self._channel
        renew(channel, self._held())
        # Where a message goes back to is looked up among the exchanges that the consumer has declared.
        channel.connection.state = self.transport.state
        channel.qos.restore_visible(num=channel.unacked_restore_limit, interval=1)

    def _held(self) -> list[str]:
        tags = (held(channel.qos) for channel in list(self.transport.channels))
        return [*list(self.kept.messages), *chain.from_iterable(tags)]

    def _connect(self) -> None:
        seconds = network_timeout(self.timeout)
        limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        self._connection = self._app.connection_for_read(transport_options=limits)
        # Each of the brokers once and without pauses, which _run has; kombu on its own would wait and try on.
        self._connection.ensure_connection(
            max_retries=len(self._connection.alt) or 1, interval_start=0, interval_step=0
        )
        self._channel = self._connection.channel()

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is of no more use, whatever state it is in
                connection.release()

    def _note_failure(self, error: Exception) -> None:
        if not self._is_cut_off:
            reason = f"{type(error).__name__}: {redact(str(error))}"
            logger.warning("Held messages cannot be renewed (%s); trying on.", reason)
        self._is_cut_off = True

    def _note_success(self, begun: float) -> None:
        if self._is_cut_off:
            logger.warning("Held messages are renewed again, after %.1f s.", self.seconds_since_renewal)
        self._is_cut_off = False
        self._renewed_at = begun


def held(qos: Any) -> list[str]:
    """Return the delivery tags of the messages that a channel has delivered and that are not acknowledged."""
    # Copying is one step for other threads. An acknowledged message lies in _delivered until the next one comes; were
    # it renewed although it was put back and is another worker's now, nobody would notice that worker's death.
    return [tag for tag in list(qos._delivered) if tag not in qos._dirty]  # noqa: SLF001


def renew(channel: Any, tags: list[str]) -> None:
    """Set the time of delivery of *tags* to now, of those that are still unacknowledged on the broker."""
    with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
        for chunk in _chunks(tags):
            # As kombu's QoS.append does, but for XX: a message that is acknowledged meanwhile must not come back.
            pipeline.zadd(channel.unacked_index_key, dict.fromkeys(chunk, time.time()), xx=True)
        pipeline.execute()


def leave(message: Any) -> None:
    """Be done with a message that was given to another worker meanwhile.

    On Redis it is that worker's under the same delivery tag. To acknowledge it there would take it away from that one,
    and if that one died, from everybody.
    """
    transport = getattr(message.channel, "connection", None)
    if getattr(transport, "driver_type", None) == "redis":
        virtual.QoS.ack(
            message.channel.qos, message.delivery_tag
        )  # what kombu's QoS for Redis builds on: here only
    else:
        message.ack_log_error(logger, ())


def _chunks(tags: list[str]) -> Iterator[list[str]]:
    return (tags[start : start + CHUNK] for start in range(0, len(tags), CHUNK))
