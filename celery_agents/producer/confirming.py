"""Have RabbitMQ confirm together what is sent together: waiting for each message by itself takes longer than all else.

It confirms where whoever sends has asked for that, by ``broker_transport_options = {"confirm_publish": True}``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from amqp import spec
from amqp.exceptions import MessageNacked

logger = logging.getLogger(__name__)

#: Seconds for which confirmations are waited for that nobody wants any more.
PATIENCE = 5.0

#: What is used of amqp.channel.Channel. Where it confirms, its ``basic_publish`` is ``basic_publish_confirm``: that is
#: ``_basic_publish``, and waiting. For each confirmation it calls what is in ``events``.
_LAYOUT = ("basic_publish_confirm", "_basic_publish", "wait", "events")


@contextmanager
def confirmed_together(channel: Any) -> Iterator[None]:
    """Give a context in which messages are sent without waiting for their confirmations; it ends when all have come.

    Raises:
        MessageNacked: The broker refused one or more.
    """
    if not _confirms(channel):
        yield
        return
    confirmations = _Confirmations(channel)
    with confirmations.noted():
        yield
        confirmations.wait()


def _confirms(channel: Any) -> bool:
    own = vars(channel).get("basic_publish")
    if own is None:
        return False
    if not (all(hasattr(channel, name) for name in _LAYOUT) and own == channel.basic_publish_confirm):
        _warn()
        return False
    return True


@functools.cache
def _warn() -> None:
    """Say once what is slower here than it could be."""
    logger.warning(
        "py-amqp is not what it was, so each message waits for its own confirmation, which takes time."
    )


class _Confirmations:
    """The confirmations of what is sent over one channel."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._latest = 0  #: tag of the message that was sent last
        self._open: set[int] = set()  #: tags of what is not confirmed
        self._is_refused = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Send without waiting meanwhile."""
        channel, events = self._channel, self._channel.events
        channel.basic_publish = self._publish
        events["basic_ack"].add(self._on_ack)
        events["basic_nack"].add(self._on_nack)
        try:
            yield
        except BaseException:
            self._drain()
            raise
        finally:
            events["basic_ack"].discard(self._on_ack)
            events["basic_nack"].discard(self._on_nack)
            channel.basic_publish = channel.basic_publish_confirm

    def _drain(self) -> None:
        """Leave no confirmation that the next message over this channel could take for its own."""
        with suppress(Exception):
            self.wait(PATIENCE)
        if self._open:
            self._channel.connection.collect()  # whoever sends next connects anew

    def wait(self, seconds: float | None = None) -> None:
        """Wait until everything is confirmed; for so many seconds at most from one confirmation to the next."""
        while self._open:
            self._channel.wait([spec.Basic.Ack, spec.Basic.Nack], timeout=seconds)
        if self._is_refused:
            raise MessageNacked("it refused a message, as it does where a queue is full")

    def _publish(self, *args: Any, confirm_timeout: float | None = None, **options: Any) -> Any:
        if not self._latest:
            # Waited for, because its confirmation tells its tag, from which on they are counted.
            return self._channel.basic_publish_confirm(*args, confirm_timeout=confirm_timeout, **options)
        answer = self._channel._basic_publish(*args, **options)  # noqa: SLF001  # see _LAYOUT
        self._latest += 1
        self._open.add(self._latest)
        return answer

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._latest = self._latest or tag
        self._open -= {each for each in self._open if each <= tag} if multiple else {tag}

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._is_refused = True
        self._on_ack(tag, multiple)
