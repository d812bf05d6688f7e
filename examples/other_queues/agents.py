"""The agent that the files beside this one run. No broker: nothing here is sent by Celery.

A direct call, ``pre_label(spec)`` or ``pre_label([spec, …])``, runs it in the calling process and thread and returns
the JSON of a ``TaskCompletionResult``, with an outcome for each agent task. It raises for none of them: what fails is
in there. Several threads may call at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from celery_agents import AgentTask, QueueRunner

runner = QueueRunner(project_hash=os.environ["CELERY_AGENTS_PROJECT"])


@runner.stage("Pre-label")
def pre_label(task: AgentTask) -> str | None:
    """Decide, from what is known of the agent task, by which pathway it leaves."""
    if task.data_title.endswith(".pdf"):
        return None  # not for us: it stays
    return "labelled" if task.data_title.endswith((".png", ".jpg", ".mp4")) else "nothing found"


def waiting(size: int) -> Iterator[list[str]]:
    """Yield what waits at the stage in lists of *size* task specs; a page is read when it is needed."""
    for stage in runner.get_agent_stages():
        specs = (task.model_dump_json() for task in stage.get_tasks())
        while batch := list(islice(specs, size)):
            yield batch
