"""An app whose agents wait for a gate, so that a test sees them at work."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("web_agents_app")
app.config_from_object("celeryconfig")
app.conf.broker_url = os.environ["BROKER_URL"]
app.conf.result_backend = os.environ["RESULT_BACKEND"]
app.conf.broker_transport_options = {}
app.conf.task_default_queue = os.environ["QUEUE"]

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label", batch_size=10)
def pre_label(task: AgentTask) -> str:
    """Wait while there is a gate for this agent task; raise where there is a stone."""
    folder = Path(os.environ["GATES"])
    while (folder / f"{task.uuid}.gate").exists():
        time.sleep(0.02)
    if (folder / f"{task.uuid}.stone").exists():
        raise ValueError(f"{task.data_title} is no good")
    return "labelled"


@runner.stage("Route")
def route(task: AgentTask) -> None:
    """Leave it where it is."""


@app.task(name="somebody.elses", shared=False)  # type: ignore[untyped-decorator]  # celery ships no types
def elses(seconds: float = 0) -> str:
    """A task that is none of the agents'."""
    time.sleep(seconds)
    if seconds < 0:
        raise ValueError("their secret")
    return "theirs"
