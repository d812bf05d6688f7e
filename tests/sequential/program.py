"""A program as its users write it: agents, and ``runner.run()``. ``FAIL`` and ``WAIT_AT`` say what its agent does."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from encord.workflow.stages.agent import AgentTask

from celery_agents import Runner

runner = Runner()
calls = 0


@runner.stage(os.environ.get("STAGE", "Pre-label"), retry_backoff_max=0)
def agent(task: AgentTask) -> str:
    """Fail where the title begins so; at one call stay until the file is gone."""
    global calls  # noqa: PLW0603  (a program)
    calls += 1
    if task.data_title.startswith(os.environ.get("FAIL", "nothing")):
        raise ValueError(f"not [{task.data_title}]")
    if calls == int(os.environ.get("WAIT_AT", "0")):
        there = Path(os.environ["WAIT_WHILE"])
        print("waiting", file=sys.stderr, flush=True)
        while there.exists():
            time.sleep(0.01)
    return "labelled"


if __name__ == "__main__":
    runner.run()
