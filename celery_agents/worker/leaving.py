"""Let the pool processes of a worker that stops leave at once.

``billiard.pool.Worker._do_exit`` tells the pool of each process that ends, and then waits for a second, so that the
pool has time to replace it. Where the worker itself stops, nobody is waiting for that news, and a worker that is told
to stop should be gone soon.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from billiard import pool

from celery_agents import stopping


def on_worker_process_shutdown(**_: Any) -> None:
    """Hurry where the worker stops."""
    # The process has sent all its results, and exits next: whatever else this module does in it is done.
    if stopping.is_stopping() and getattr(pool, "time", None) is time:
        pool.time = SimpleNamespace(sleep=lambda _seconds: None)
