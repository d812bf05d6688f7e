"""An app whose agent does with each agent task what a test has ordered, in a file of that name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import Progress, QueueRunner
from celery_agents.worker import listening

# So that tests need not wait for long.
listening.INTERVAL, listening.LOOK = 0.1, 0.05
listening.COUNTS_FOR = float(os.environ.get("COUNTS_FOR", "0.8"))

app = Celery("ordered_app", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(task_default_queue=os.environ["QUEUE"], worker_prefetch_multiplier=1)
if "LEDGER_URL" in os.environ:
    app.conf.agents_ledger_url = os.environ["LEDGER_URL"] or None

runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)
ORDERS = Path(os.environ["ORDERS"])
IS_TEST = os.getpid() == int(os.environ["TEST_PID"])  #: this process is the one that asks


def note_run(task: AgentTask) -> None:
    with (ORDERS / "runs").open("a") as runs:
        runs.write(f"{task.uuid} {os.getpid()}\n")


def fail() -> None:
    raise ValueError("no good")


def wait_for_go() -> None:
    while not (ORDERS / "go on").exists():
        time.sleep(0.01)


def tell_once(progress: Progress) -> None:
    progress.update(1, 4, "a quarter")
    progress.update(2, 4, "half of https://x.test/y?X-Amz-Signature=abcdef")
    wait_for_go()


def tell_from_a_thread(progress: Progress) -> None:
    thread = threading.Thread(target=progress.update, args=(3, 4, "from a thread"))
    thread.start()
    thread.join()


def tell_for_ever(progress: Progress) -> None:
    while True:
        progress.update(1, 0)
        time.sleep(0.01)


DEEDS: dict[str, Callable[[Progress], None]] = {
    "proceed": lambda _: None,
    "hold": lambda _: None,
    "fail": lambda _: fail(),
    "fail here": lambda _: fail() if IS_TEST else None,
    "fail elsewhere": lambda _: None if IS_TEST else fail(),
    "take long": lambda _: wait_for_go(),
    "tell once": tell_once,
    "tell from a thread": tell_from_a_thread,
    "tell for ever": tell_for_ever,
}


@runner.stage("Pre-label", batch_size=10, soft_time_limit=float(os.environ.get("SOFT", "30")))
def pre_label(task: AgentTask, progress: Progress) -> str | None:
    """Do as ordered; by default send it on."""
    note_run(task)
    path = ORDERS / str(task.uuid)
    order = path.read_text() if path.exists() else "proceed"
    DEEDS[order](progress)
    return None if order == "hold" else "labelled"
