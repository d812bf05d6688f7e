"""Sends to the worker of one app, in the app's own virtual environment, and waits for the results.

    python -m benchmarks.apps.sender MODULE

List first, then send: the clock runs from the first message to the last result, not while Encord is asked.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any

from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage

from benchmarks.conversation import answer

#: Seconds for a message; bounds what hangs.
PATIENCE = 600.0


class Sender:
    """Has what waits at the stage in hand, as specs."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._specs: list[str] = []

    def list(self) -> int:
        """Take in hand what waits, and return how many these are."""
        client = EncordUserClient.create_with_ssh_private_key(
            ssh_private_key_path=os.environ["ENCORD_SSH_KEY_FILE"], domain=os.environ["ENCORD_DOMAIN"]
        )
        project = client.get_project(os.environ["CELERY_AGENTS_PROJECT"])
        stage = project.workflow.get_stage(name="Pre-label", type_=AgentStage)
        self._specs = [agent_task.model_dump_json() for agent_task in stage.get_tasks()]
        return len(self._specs)

    def send(self, size: int) -> float:
        """Send all in lists of *size*, or one by one; return the seconds until the last result was there."""
        messages: list[Any] = [
            self._specs[start : start + size] for start in range(0, len(self._specs), size)
        ]
        if size == 1:
            messages = self._specs
        began = time.perf_counter()
        for result in [self._task.delay(message) for message in messages]:
            result.get(timeout=PATIENCE)
        return time.perf_counter() - began


def main() -> None:
    sender = Sender(importlib.import_module(sys.argv[1]).task)
    answer({"list": sender.list, "send": sender.send})


if __name__ == "__main__":
    main()
