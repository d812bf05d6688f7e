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
# byte says that the worker stops, the others hold digests of the ids of cancelled messages.
_memory = mmap.mmap(-1, 1 + CANCELLED_KEPT * _DIGEST)
_number_cancelled = 0


def is_stopping() -> bool:
    """Whether the worker that this process belongs to has been asked to stop."""
    return _memory[0] != 0


def is_cancelled(message_id: str) -> bool:
    """Whether ``cancel`` was called for this message in the worker that this process belongs to."""
    return _memory.find(_digest(message_id), 1) != -1


def cancel(message_id: str) -> None:
    """Tell this worker's processes that a message is cancelled; to be called in the worker itself."""
    global _number_cancelled  # noqa: PLW0603  (the place in the memory that is written next)
    start = 1 + _number_cancelled % CANCELLED_KEPT * _DIGEST
    _memory[start : start + _DIGEST] = _digest(message_id)
    _number_cancelled += 1


@functools.lru_cache
def _digest(message_id: str) -> bytes:
    return hashlib.blake2b(message_id.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()


def connect() -> None:
    """Note from now on when the worker is asked to stop; calling it again changes nothing."""
    worker_shutting_down.connect(_on_shutting_down, dispatch_uid="celery_agents.stopping", weak=False)


def _on_shutting_down(**_: Any) -> None:
    _memory[0] = 1
