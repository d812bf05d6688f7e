"""Let every process of a worker know what it should leave: everything, as the worker stops, or a cancelled message.

On SIGTERM Celery waits for the messages that its pool processes are working on, and tells the processes nothing; nor
does it tell them that the message they are working on was revoked. A batch can have minutes to go; with this memory it
ends after the agent task that it is on.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
from typing import Any

from celery.signals import worker_shutting_down

#: How many cancelled messages are remembered, the latest; those that run at one time are far fewer.
CANCELLED_KEPT = 256
_DIGEST = 16

# Memory that pool processes share with the worker they are forked from; a pool of threads shares it anyway. Its first
# byte says that the worker stops, then it counts cancelled messages, and then it holds digests of their ids.
_NUMBER = slice(1, 9)
_memory = mmap.mmap(-1, _NUMBER.stop + CANCELLED_KEPT * _DIGEST)


def is_stopping() -> bool:
    """Whether the worker that this process belongs to has been asked to stop."""
    return _memory[0] != 0


def is_cancelled(message_id: str) -> bool:
    """Whether ``cancel`` was called for this message in the worker that this process belongs to."""
    return _is_among(message_id, _memory[_NUMBER])


@functools.lru_cache
def _is_among(message_id: str, number: bytes) -> bool:  # noqa: ARG001  (a new number means another look)
    """Look through the digests; asked for each agent task, which would take longer than all else about it."""
    return _memory.find(_digest(message_id), _NUMBER.stop) != -1


def cancel(message_id: str) -> None:
    """Tell this worker's processes that a message is cancelled; to be called in the worker itself."""
    number = int.from_bytes(_memory[_NUMBER], "little")
    start = _NUMBER.stop + number % CANCELLED_KEPT * _DIGEST
    _memory[start : start + _DIGEST] = _digest(message_id)
    _memory[_NUMBER] = (number + 1).to_bytes(8, "little")  # last, as it lets processes look again


def _digest(message_id: str) -> bytes:
    return hashlib.blake2b(message_id.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()


def connect() -> None:
    """Note from now on when the worker is asked to stop; calling it again changes nothing."""
    worker_shutting_down.connect(_on_shutting_down, dispatch_uid="celery_agents.stopping", weak=False)


def _on_shutting_down(**_: Any) -> None:
    _memory[0] = 1
