"""celery-batches: single messages, which the worker gives to encord-agents' QueueRunner in lists of 100."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery_batches import Batches
from encord_agents.tasks import QueueRunner

from benchmarks.apps import agents

SIZE = 100

app = Celery("benchmarks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
# As celery-batches asks for: what is collected is prefetched.
app.conf.worker_prefetch_multiplier = SIZE
runner = QueueRunner(project_hash=os.environ["CELERY_AGENTS_PROJECT"])
process_task = runner.stage("Pre-label")(getattr(agents, os.environ["AGENT"]))


@app.task(base=Batches, flush_every=SIZE, flush_interval=1)
def task(requests: list[Any]) -> None:
    result = process_task([request.args[0] for request in requests])
    for request in requests:
        app.backend.mark_as_done(request.id, result, request=request)
