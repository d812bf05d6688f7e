"""Ask the broker how many messages wait, without the worker's own connection: that may be what is broken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

#: Kinds of transports on which ``Depths`` can promise not to hang (kombu's ``Transport.driver_type``).
DRIVERS = frozenset({"redis", "amqp"})


class Depths:
    """Counts waiting messages, on a connection that is made when it is needed and kept.

    Args:
        timeout: Seconds that the broker has for each answer.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._connection: Any = None
        self._channel: Any = None

    def ask(self, queues: Iterable[str], like: Any) -> dict[str, int]:
        """Return how many messages wait in each of *queues*; a queue that does not exist has none.

        Args:
            queues: Names.
            like: A kombu connection; the broker that it leads to at present is the one that is asked.

        Raises:
            Exception: Whatever a network and a client library come up with; the next call connects anew.
        """
        try:
            if self._connection is None:
                self._connect(like)
            return {queue: self._depth(queue) for queue in queues}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up, whatever state it is in; the next call makes another one."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()

    def _connect(self, like: Any) -> None:
        limits = {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
        self._connection = like.clone(
            connect_timeout=self._timeout,
            transport_options={**(like.transport_options or {}), **limits},
            alternates=(),  # on another broker the same queue has another depth
        )
        self._connection.connect()
        # kombu hands these limits to Redis clients. py-amqp knows none for reading once it is connected.
        sock = getattr(self._connection.connection, "sock", None)
        if sock is not None:
            sock.settimeout(self._timeout)

    def _depth(self, queue: str) -> int:
        if self._channel is None:
            self._channel = self._connection.channel()
        try:
            return int(self._channel.queue_declare(queue=queue, passive=True).message_count)
        except self._connection.channel_errors:
            # There is no such queue: on Redis an empty one does not exist. RabbitMQ closes the channel over it.
            if not getattr(self._channel, "is_open", True):
                self._channel = None
            return 0
