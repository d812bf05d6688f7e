"""An app with a ledger, where LEDGER_URL names one. Its agent fails for videos until the file REPAIRED is there."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("tests.cli.ledger_app")
app.conf.update(
    worker_prefetch_multiplier=1,
    task_default_queue="ledgered",
    agents_ledger_url=os.environ.get("LEDGER_URL"),
)
runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label", batch_size=2)
def pre_label(task: AgentTask) -> str:
    if task.data_title.startswith("video") and not Path(os.environ["REPAIRED"]).exists():
        raise ValueError(f"no box in {task.data_title}\nand more about it")
    return "labelled"
