"""Our app: the agent is a Celery task."""

from __future__ import annotations

import json
import os

from celery import Celery

from benchmarks.apps import agents, profiling
from celery_agents import ExecutionPolicy, QueueRunner, TaskOutcome

app = Celery("benchmarks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)
options = json.loads(os.environ.get("OPTIONS", "{}"))
task = runner.stage("Pre-label", **options)(getattr(agents, os.environ["AGENT"]))
profiling.connect()


def query(spec: str) -> TaskOutcome:
    """Have a worker do one agent task, as somebody who waits for it asks."""
    return runner.query(task, spec, policy=ExecutionPolicy.REMOTE)
