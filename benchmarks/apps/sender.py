"""Sends to the worker of one app, in the app's own virtual environment, and waits for the results.

    python -m benchmarks.apps.sender MODULE

List first, then send: the clock runs from the first message to the last result, not while Encord is asked.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage

from benchmarks.conversation import answer

#: Seconds for a message; bounds what hangs.
PATIENCE = 600.0


class Sender:
    """Has what waits at the stage in hand, as specs."""

    def __init__(self, app: ModuleType) -> None:
        self._task = app.task
        self._query: Callable[[str], object] = getattr(app, "query", self._send_and_wait)
        self._specs: list[str] = []

    def take(self) -> int:
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

    def query(self) -> list[float]:
        """Have one agent task after the other done by the worker; return the seconds of each."""
        return [_seconds(self._query, spec) for spec in self._specs]

    def enqueue(self) -> None:
        """Have our own producer list and send what waits; return when all results are there."""
        self._task.runner.enqueue().wait(PATIENCE)

    def _send_and_wait(self, spec: str) -> None:
        self._task.delay(spec).get(timeout=PATIENCE)


def _seconds(function: Callable[[str], object], spec: str) -> float:
    began = time.perf_counter()
    function(spec)
    return time.perf_counter() - began


def main() -> None:
    sender = Sender(importlib.import_module(sys.argv[1]))
    orders = (sender.take, sender.send, sender.query, sender.enqueue)
    answer({order.__name__: order for order in orders})


if __name__ == "__main__":
    main()
