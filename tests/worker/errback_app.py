"""An agent that refuses videos, and a task that is told of it."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import AgentTaskError, QueueRunner

app = Celery("errback_app", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.task_default_queue = os.environ["QUEUE"]


runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label")
def hold(task: AgentTask) -> None:
    """Refuse videos, hold everything else."""
    if task.data_title.startswith("video"):
        raise ValueError("no videos")


@app.task(shared=False)  # type: ignore[untyped-decorator]  # celery ships no types
def note_failure(request: Any, error: BaseException, traceback: Any) -> None:
    """Keep what an errback is given where the test finds it."""
    assert isinstance(error, AgentTaskError)
    noted = {"type": type(error).__name__, "outcomes": [each.outcome for each in error.result.outcomes]}
    app.backend.store_result(f"{request.id}-noted", noted, "SUCCESS")
