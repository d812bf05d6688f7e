"""An app whose agents take too long with one agent task, in the way that the environment says."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner, time_limits

app = Celery("limited_app", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(task_default_queue=os.environ["QUEUE"], worker_prefetch_multiplier=1)
if os.environ.get("WITHOUT_LEDGER"):
    app.conf.agents_ledger_url = None
if "LAST_RESORT" in os.environ:
    time_limits.LAST_RESORT = float(os.environ["LAST_RESORT"])

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


def sleep() -> None:
    """Take long, and end when interrupted."""
    time.sleep(60)


def compute() -> None:
    """Take long without waiting for anything."""
    while True:
        pass


def tidy_up() -> None:
    """Take long, and still have an answer when interrupted."""
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return


def ignore() -> None:
    """Take long, and go on whatever is raised."""
    while True:
        try:
            time.sleep(60)
        except Exception as error:  # noqa: BLE001  (that is its habit)
            print(f"ignored {error!r}")


def hold_the_lock() -> None:
    """Take long in a library that lets nothing else of the interpreter go on."""
    ctypes.PyDLL(None).sleep(60)


HABITS = {
    "sleep": sleep,
    "compute": compute,
    "tidy_up": tidy_up,
    "ignore": ignore,
    "hold_the_lock": hold_the_lock,
}


@runner.stage("Pre-label", batch_size=20, soft_time_limit=0.5, time_limit=1.5)
def pre_label(task: AgentTask) -> str:
    """Do what HABIT says for the agent task that SLOW names, and send all others on."""
    with Path(os.environ["RUNS"]).open("a") as runs:
        runs.write(f"{task.uuid}\n")
    if str(task.uuid) == os.environ["SLOW"]:
        HABITS[os.environ["HABIT"]]()
    return "labelled"
