"""A plain loop: no queue at all.

    python -m examples.other_queues.plain_loop

Each call gets a list, because Encord is asked once for a list and not once for each agent task.
``celery_agents.Runner`` is this loop with retries, a command line and a bar.
"""

from __future__ import annotations

from celery_agents import TaskCompletionResult
from examples.other_queues.agents import pre_label, waiting

if __name__ == "__main__":
    for specs in waiting(100):
        result = TaskCompletionResult.model_validate_json(pre_label(specs))
        for outcome in result.outcomes:
            print(outcome.data_title, outcome.outcome, outcome.error.detail if outcome.error else "")
