"""The app whose workers are killed: ``celeryconfig.py`` as users copy it, and what a test changes, from the environment.

``CONF`` and ``STAGE`` are JSON: Celery settings, and options of the stage. What its agents do, they write down.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from celery import Celery, current_task
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner, TaskAgentReturnStruct

app = Celery("chaos")
app.config_from_object("celeryconfig")
app.conf.update(
    broker_url=os.environ["BROKER_URL"],
    result_backend=os.environ["RESULT_BACKEND"],
    task_default_queue=os.environ["QUEUE"],
    broker_transport_options=json.loads(os.environ["TRANSPORT"]),
    **json.loads(os.environ.get("CONF", "{}")),
)

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


def work(task: AgentTask) -> None:
    """Write down who runs what, die of the poison one, and take a while."""
    if "RUNS" in os.environ:
        with Path(os.environ["RUNS"]).open("a") as runs:
            runs.write(f"{task.uuid} {current_task.request.id} {os.getpid()}\n")
    if str(task.uuid) == os.environ.get("POISON"):
        if os.environ["DIES"] == "worker":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(os.environ.get("SECONDS_PER_TASK", "0")))


def label_and_move(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
    """Save the label row and send it on."""
    work(task)
    return TaskAgentReturnStruct(pathway="labelled", label_row=label_row)


def move(task: AgentTask) -> str:
    """Only send it on."""
    work(task)
    return "labelled"


pre_label = runner.stage("Pre-label", **json.loads(os.environ.get("STAGE", "{}")))(
    label_and_move if "SAVES" in os.environ else move
)
