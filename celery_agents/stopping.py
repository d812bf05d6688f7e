"""Let every process of a worker know that the worker is stopping, so that it begins no other agent task.

On SIGTERM Celery waits for the messages that its pool processes are working on, and tells the processes nothing. A
batch can have minutes to go; with this flag it ends after the agent task that it is on.
"""

from __future__ import annotations

import mmap
from typing import Any

from celery.signals import worker_shutting_down

# One byte of memory that pool processes share with the worker they are forked from; a pool of threads shares it anyway.
_flag = mmap.mmap(-1, 1)


def is_stopping() -> bool:
    """Whether the worker that this process belongs to has been asked to stop."""
    return _flag[0] != 0


def connect() -> None:
    """Note from now on when the worker is asked to stop; calling it again changes nothing."""
    worker_shutting_down.connect(_on_shutting_down, dispatch_uid="celery_agents.stopping", weak=False)


def _on_shutting_down(**_: Any) -> None:
    _flag[0] = 1
