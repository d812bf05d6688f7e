"""An app with a ledger. Its agents die, dawdle and count their runs as the environment says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("ledgered_app", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    worker_prefetch_multiplier=1,
    agents_ledger_url=os.environ["LEDGER_URL"],
    broker_transport_options={"visibility_timeout": 3}
    if os.environ["BROKER_URL"].startswith("redis")
    else {},
)

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label", batch_size=10, retry_backoff=1, retry_jitter=False)
def pre_label(task: AgentTask) -> str:
    """Note that it ran; kill this process if it is the poison one."""
    with Path(os.environ["RUNS"]).open("a") as runs:
        runs.write(f"{task.uuid}\n")
    if str(task.uuid) == os.environ.get("POISON"):
        os._exit(1)
    time.sleep(float(os.environ.get("SECONDS_PER_TASK", "0")))
    return "labelled"
