"""Agents over HTTP, for FastAPI: enqueue, poll, follow, cancel, and Encord's task-ready webhook. Extra ``web``.

from celery_agents.web import router

web = FastAPI()
web.include_router(router(runner, authenticate=signed_in), prefix="/agents")
"""

try:
    import fastapi  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'celery_agents.web needs FastAPI: pip install "celery-agents[web]"', name=error.name
    ) from error

from celery_agents.web.api import NO_AUTHENTICATION, router
from celery_agents.web.signature import Secrets, UnverifiedError, verify
from celery_agents.web.webhook import webhook

__all__ = ["NO_AUTHENTICATION", "Secrets", "UnverifiedError", "router", "verify", "webhook"]
