"""Work off a batch where nobody brings it again: what is worth another attempt is waited for in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from celery_agents.batch import Batch, Execution


class Patience:
    """Waits for passing trouble to pass, for so many seconds in all."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def wait(self, seconds: float) -> bool:
        """Wait so long and return True, or return False at once where that is more than what is left."""
        self._left -= seconds
        if self._left < 0:
            return False
        time.sleep(seconds)
        return True


def work_off(batch: Batch, attempt: Callable[[Batch], Execution], wait: Callable[[float], bool]) -> Execution:
    """Attempt *batch*, and what is left of it again, until nothing is; return the last attempt, with all outcomes.

    Args:
        batch: The specs.
        attempt: Executes them once.
        wait: Waits so many seconds before the next attempt and returns whether there is to be one.
    """
    while True:
        execution = attempt(batch)
        if not execution.again or not wait(execution.countdown):
            return execution
        batch = replace(batch, specs=execution.again, carry=execution.carry)
