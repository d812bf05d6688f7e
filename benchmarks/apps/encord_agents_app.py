"""encord-agents' QueueRunner in a hand-written Celery task, as its documentation shows (`examples/celery_agent.py`).

As there, but for lists of specs beside single ones.
"""

from __future__ import annotations

import os

from celery import Celery
from encord_agents.tasks import QueueRunner

from benchmarks.apps import agents

app = Celery("benchmarks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
runner = QueueRunner(project_hash=os.environ["CELERY_AGENTS_PROJECT"])
process_task = runner.stage("Pre-label")(getattr(agents, os.environ["AGENT"]))


@app.task
def task(task_spec: str | list[str]) -> str:
    return process_task(task_spec)
