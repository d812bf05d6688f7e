"""An app as a user writes it. Broker, backend and project come from the environment."""

from __future__ import annotations

import os

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("tests.cli.app")
app.conf.worker_prefetch_multiplier = 1
app.conf.agents_ledger_url = os.environ.get("LEDGER_URL")  # mostly none: many tests send the same agent tasks
runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label", queue="gpu", batch_size=5)
def pre_label(task: AgentTask) -> str | None:
    if task.data_title.startswith("video"):
        raise ValueError(f"no box in {task.data_title}")
    if task.data_title.startswith("pdf"):
        return None
    return "labelled"


@runner.stage(os.environ.get("SECOND_STAGE", "Route"))
def route(task: AgentTask) -> str:
    return "small"
