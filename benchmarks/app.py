"""The app that benchmarks start workers on; broker, project and ledger come from the environment."""

from __future__ import annotations

import os

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("benchmarks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.worker_prefetch_multiplier = 1
if os.environ["LEDGER"] == "off":
    app.conf.agents_ledger_url = None

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label", batch_size=100)
def pre_label(task: AgentTask) -> str:  # noqa: ARG001  (it is what makes it an agent of agent tasks)
    """Need nothing, and send it on."""
    return "labelled"
