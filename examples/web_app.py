"""Agents over HTTP: enqueue, poll, follow and cancel, and Encord's webhook. See docs/web.md.

celery -A examples.web_app worker
WEB_TOKEN=… uvicorn examples.web_app:web --timeout-graceful-shutdown 5
"""

import os
import secrets
from typing import Annotated

from celery import Celery
from encord.workflow.stages.agent import AgentTask
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from celery_agents import QueueRunner
from celery_agents.web import router

app = Celery("web_app")
app.config_from_object("celeryconfig")
runner = QueueRunner(project_hash=os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label")
def pre_label(task: AgentTask) -> str:
    """Decide, from what is known of the agent task, by which pathway it leaves."""
    return "labelled" if task.data_title.endswith((".png", ".jpg")) else "nothing found"


def signed_in(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
    """Let in whoever has the token; put your own way of signing in here."""
    if not secrets.compare_digest(bearer.credentials.encode(), os.environ["WEB_TOKEN"].encode()):
        raise HTTPException(403, "This token is not the right one.")


web = FastAPI(title="Agents")
# With ENCORD_WEBHOOK_SECRET in the environment it has Encord's webhook as well: POST /agents/encord/task-ready.
web.include_router(router(runner, authenticate=signed_in, max_in_flight=1_000), prefix="/agents")
