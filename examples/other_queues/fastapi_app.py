"""FastAPI: an agent task is run while the request waits.

    uvicorn examples.other_queues.fastapi_app:app

For short agents. What takes longer belongs to a worker and is asked for later: see ``celery_agents.web``. Put whoever
may call in front of it, as for any service.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI

from celery_agents import TaskCompletionResult
from examples.other_queues.agents import pre_label

app = FastAPI()


@app.post("/pre-label")
def run(specs: Annotated[dict[str, Any] | list[dict[str, Any]], Body()]) -> TaskCompletionResult:
    """Run the agent on one task spec, or on a list of them. ``def``: FastAPI gives it a thread."""
    return TaskCompletionResult.model_validate_json(pre_label(specs))
