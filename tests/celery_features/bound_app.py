"""Agents that are declared without an app, as in a module of their own, and an app with settings in a namespace."""

from __future__ import annotations

import os
import time

from celery import Celery
from encord.workflow.stages.agent import AgentTask
from redis import Redis

from celery_agents import QueueRunner

QUEUE = os.environ["QUEUE"]
TOGETHER = 4  #: agents that wait for each other
record = Redis.from_url(os.environ["RECORD_URL"], decode_responses=True)

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"])


@runner.stage("Pre-label", batch_size=1)
def pre_label(task: AgentTask) -> str:
    """Go on when so many run at the same time."""
    record.rpush(f"{QUEUE}:processes", os.getpid())
    record.incr(f"{QUEUE}:begun")
    for _ in range(1000):
        if int(str(record.get(f"{QUEUE}:begun"))) >= TOGETHER:
            return "labelled"
        time.sleep(0.02)
    raise TimeoutError("The others did not come.")


class Settings:
    """What a web framework's settings module has."""

    CELERY_BROKER_URL = os.environ["BROKER"]
    CELERY_RESULT_BACKEND = os.environ["BACKEND"]
    CELERY_TASK_DEFAULT_QUEUE = QUEUE
    CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
    CELERY_AGENTS_LEDGER_URL = os.environ["LEDGER"]


app = Celery("bound")
app.config_from_object(Settings, namespace="CELERY")
