"""Two apps in one process: one on Redis, the other on quorum queues of RabbitMQ with its results in PostgreSQL."""

from __future__ import annotations

import os

from celery import Celery
from encord.workflow.stages.agent import AgentTask
from redis import Redis

from celery_agents import QueueRunner, StageTask

QUEUE = os.environ["QUEUE"]
record = Redis.from_url(os.environ["RECORD_URL"], decode_responses=True)

app = Celery("on_redis", broker=os.environ["BROKER"], backend=os.environ["BACKEND"], set_as_current=False)
app.conf.update(task_default_queue=QUEUE, broker_connection_retry_on_startup=True)

other_app = Celery(
    "on_rabbitmq",
    broker=os.environ["OTHER_BROKER"],
    backend=os.environ["OTHER_BACKEND"],
    set_as_current=False,
)
other_app.conf.update(
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    task_create_missing_queue_type="quorum",
    task_create_missing_queue_exchange_type="topic",
    task_default_exchange_type="topic",  # so that the broker, not a worker, holds what waits for a retry
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    agents_ledger_url=os.environ["RECORD_URL"],
)

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)
other_runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=other_app)


@runner.stage("Pre-label")
def pre_label(task: AgentTask) -> str:
    """Send it on."""
    return "labelled"


@other_runner.stage("Route", bind=True)
def route(self: StageTask, task: AgentTask) -> str:
    """Send it on, at the attempt that the test wants."""
    record.rpush(f"{QUEUE}:{self.request.id}", self.request.delivery_info["routing_key"])
    if record.decr(f"{QUEUE}:{task.data_title}:retries") >= 0:
        raise self.retry(countdown=1)
    return "small"
