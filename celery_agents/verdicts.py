"""What counts as a failure of many agent tasks together, and how it is told."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from celery_agents.messages import TaskOutcome
from celery_agents.options import FailurePolicy


def is_failure(failed: int, total: int, policy: FailurePolicy) -> bool:
    """Whether *policy* calls it a failure that *failed* of *total* agent tasks FAILED."""
    return failed > 0 and (policy == "any" or (policy == "all" and failed == total))


def sentence(failed: Sequence[TaskOutcome], total: int, number: int | None = None) -> str:
    """Say how many of *total* failed, and why the first did.

    Args:
        failed: Those that FAILED, or the first of them.
        total: How many agent tasks there were.
        number: How many FAILED, where *failed* has not all of them.
    """
    first = failed[0].error
    reason = f"{first.type.removeprefix('builtins.')}: {first.detail}" if first else "no reason is known"
    return f"{number or len(failed)} of {total} agent tasks failed; the first with {reason}"


def log_failures(outcomes: Iterable[TaskOutcome], logger: logging.Logger) -> None:
    """Log each of *outcomes* that FAILED as an error, with the traceback of the user's code."""
    for outcome in outcomes:
        if outcome.error is not None:
            logger.error(
                "Agent task %s (data unit %s) FAILED in step %s: %s",
                outcome.task_uuid or "with an unreadable spec",
                outcome.data_hash,
                outcome.error.step,
                outcome.error.traceback or f"{outcome.error.type}: {outcome.error.detail}",
            )
