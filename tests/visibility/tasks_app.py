"""Plain Celery tasks that write down when they begin and end; the tests start workers on it."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, Task
from redis import Redis

from celery_agents.worker import visibility

app = Celery(
    "tasks_app", broker=os.environ["BROKER_URL"], broker_transport=os.environ.get("BROKER_TRANSPORT")
)
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    broker_transport_options=(
        {"visibility_timeout": float(os.environ["TIMEOUT"])} if "TIMEOUT" in os.environ else {}
    ),
    agents_visibility_renewal=os.environ.get("RENEWAL") != "off",
)
visibility.install(app)

#: The tests read there what happened. It is not the broker's address, which a test may cut.
record = Redis.from_url(os.environ["RECORD_URL"], decode_responses=True)
QUEUE = app.conf.task_default_queue


# Not shared: each test imports this module anew, and has an app with the tasks of its own. Celery ships no types.
@app.task(shared=False)  # type: ignore[untyped-decorator]
def note(name: str, seconds: float = 0) -> None:
    """Take *seconds*."""
    record.rpush(f"{QUEUE}:begun", name)
    time.sleep(seconds)
    record.rpush(f"{QUEUE}:done", name)


@app.task(shared=False)  # type: ignore[untyped-decorator]
def note_until_released(name: str) -> None:
    """Take until the test says so."""
    record.rpush(f"{QUEUE}:begun", name)
    while not record.exists(f"{QUEUE}:released"):
        time.sleep(0.05)
    record.rpush(f"{QUEUE}:done", name)


@app.task(bind=True, shared=False)  # type: ignore[untyped-decorator]
def note_at_second_attempt(self: Task[Any, Any], name: str, countdown: float) -> None:
    """Wait *countdown* seconds for the second attempt."""
    if not self.request.retries:
        raise self.retry(countdown=countdown)
    note(name)
