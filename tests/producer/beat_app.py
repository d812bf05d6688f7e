"""An app whose stages are swept by Celery's beat."""

from __future__ import annotations

import os

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("beat_app", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(task_default_queue="nobody-listens-here", worker_prefetch_multiplier=1)
runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label", batch_size=5, queue=os.environ["QUEUE"])
def pre_label(task: AgentTask) -> str:
    return "labelled"


app.conf.beat_schedule = {**runner.beat_schedule(every=0.5, stages=["Pre-label"], max_in_flight=10)}
