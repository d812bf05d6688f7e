"""An app module as a user would write it; the tests start workers on it."""

from __future__ import annotations

import gc
import os
import time

import encord
from celery import Celery
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner, TaskAgentReturnStruct

app = Celery("agents_app")
app.config_from_object("celeryconfig")
app.conf.broker_url = os.environ["BROKER_URL"]
app.conf.result_backend = os.environ["RESULT_BACKEND"]
app.conf.broker_transport_options = {}
app.conf.task_default_queue = os.environ.get("QUEUE", "agents")
if os.environ.get("IMPATIENT"):
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 1, "timeout": 1.0}}

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage(
    os.environ.get("PRE_LABEL_STAGE", "Pre-label"),
    batch_size=100,
    retry_backoff=1,
    retry_backoff_max=2,
    retry_jitter=False,
)
def pre_label(task: AgentTask) -> str:
    """Raise for one agent task of each hundred, hold some up, send all others on."""
    number = int(task.data_title.rpartition("-")[2].partition(".")[0])
    if number % 100 == 17:
        raise ValueError(f"no good: {task.data_title}")
    time.sleep(float(os.environ.get("SECONDS_PER_TASK", "0")))
    return "labelled"


@runner.stage("Route")
def route(label_row: LabelRowV2) -> TaskAgentReturnStruct:
    """Save the label row and send it on."""
    return TaskAgentReturnStruct(pathway="small", label_row=label_row)


@app.task(shared=False)  # type: ignore[untyped-decorator]  # celery ships no types
def is_sdk_collected() -> bool:
    """Whether this pool process's garbage collector looks through what the SDK is made of."""
    return any(each is vars(encord) for each in gc.get_objects())
