"""An app whose worker gets what is no message, with small limits so that much is too much."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("hostile_app", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    accept_content=os.environ["ACCEPT"].split(","),
    agents_ledger_url=os.environ["LEDGER_URL"],
    agents_max_spec_bytes=2_000,
    agents_max_message_bytes=50_000,
    worker_send_task_events=True,
)

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label")
def hold(task: AgentTask) -> None:
    """Leave everything where it is."""


@app.task(name="touch", shared=False)  # type: ignore[untyped-decorator]  # celery ships no types
def touch(path: str) -> None:
    """Be a task that is no agent, and show that it ran."""
    Path(path).touch()
