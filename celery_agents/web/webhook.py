"""Encord's task-ready webhook: a stage is swept when Encord tells that agent tasks wait there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from celery_agents.errors import LedgerError, SetupError
from celery_agents.producer.asked import AskedSweep, ask
from celery_agents.redaction import writable
from celery_agents.runner import QueueRunner
from celery_agents.task import StageTask
from celery_agents.web import notification, problems
from celery_agents.web.calls import Blocking, Shared
from celery_agents.web.documents import HeardDocument
from celery_agents.web.notification import MalformedError, Notification, OtherEventError, OtherVersionError
from celery_agents.web.problems import ProblemRoute, described
from celery_agents.web.served import NotServedError, Served
from celery_agents.web.signature import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    TOLERANCE,
    Secrets,
    UnverifiedError,
    verify,
)

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

PATH = "/encord/task-ready"
#: Seconds after which a sweep begins that was asked for: all notifications that come until then make one sweep. Encord
#: looks for what waits every five minutes only.
GATHERING = 2.0

_HEADERS = [
    {"name": SIGNATURE_HEADER, "in": "header", "required": True, "schema": {"type": "string"}},
    {"name": TIMESTAMP_HEADER, "in": "header", "required": True, "schema": {"type": "integer"}},
]
_BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}


def webhook(
    source: QueueRunner | Celery,
    secrets: str | Iterable[str] | None = None,
    *,
    path: str = PATH,
    tolerance: float = TOLERANCE,
    max_in_flight: int | None = None,
) -> APIRouter:
    """Return a router with one route: what Encord's agent stages notify.

    A notification that Encord has signed makes a worker sweep that stage, once, however many notifications come while
    the sweep waits for its turn. It is answered when that is safe: with 200, the only status that Encord takes for
    delivered, also where the project, the stage or the event is not one of ours; the body says so. With 401 where the
    signature or its time is not right, 400 where the body is not a notification, 413 where it is too long, 501 for a
    version that is not known, and 503 where the broker, the ledger or Encord cannot be used: Encord notifies again.

    Args:
        source: The runner whose agents are served, or the app of several.
        secrets: The signing secret that the Encord app shows beside the URL; several where several stages notify this
            URL, or while one replaces another. By default what ``ENCORD_WEBHOOK_SECRET`` has, separated by commas.
        path: The route's.
        tolerance: How far the signed timestamp may be from now, in seconds.
        max_in_flight: How many agent tasks of a stage may be in flight; where there are as many, the sweep goes on when
            half of them are left.

    Raises:
        DeclarationError: There is no secret, or *source* is no runner and no app.
    """
    router = APIRouter(route_class=ProblemRoute)
    hook = Webhook(Served(source), Secrets(secrets), tolerance, max_in_flight)
    router.add_api_route(
        path,
        hook.hear,
        methods=["POST"],
        name="celery_agents_webhook",
        summary="Hear from Encord that agent tasks wait at a stage",
        tags=["Encord"],
        response_model=HeardDocument,
        responses={400: {"model": problems.Problem}, **described(401, 413, 501, 503)},
        openapi_extra={"parameters": _HEADERS, "requestBody": _BODY},
    )
    return router


class Webhook:
    """Hears notifications, and has stages swept."""

    def __init__(self, served: Served, secrets: Secrets, tolerance: float, max_in_flight: int | None) -> None:
        self._served, self._secrets, self._tolerance = served, secrets, tolerance
        self._max_in_flight = max_in_flight
        self._blocking = Blocking()
        self._asking: Shared[tuple[StageTask, AskedSweep]] = Shared()

    async def hear(self, request: Request) -> Response:
        """Answer one request."""
        body = await request.body()
        try:
            self._verify(request, body)
            heard = notification.read(body)
            # A burst of notifications costs two questions to the ledger: the one that runs, and one for all the others.
            key = heard.project_hash, heard.stage_uuid
            task, asked = await self._asking(key, partial(self._blocking, self._ask, *key))
        except UnverifiedError as error:
            # Which check failed is for whoever runs this, not for whoever sent it.
            logger.warning("Refused a request to the webhook: %s", writable(str(error)))
            return problems.response(401, "This request is not known to be Encord's.")
        except MalformedError as error:
            return problems.response(400, str(error))
        except OtherVersionError as error:
            logger.error("A notification of Encord's cannot be read: %s", error)  # noqa: TRY400  # one sentence
            return problems.response(501, str(error))
        except (OtherEventError, NotServedError) as error:
            return _ignored(str(error))
        except (SetupError, LedgerError) as error:
            logger.error("A notification of Encord's is not acted on: %s", error)  # noqa: TRY400  # one sentence
            raise
        return _asked(heard, task, asked)

    def _verify(self, request: Request, body: bytes) -> None:
        signatures, timestamps = (
            request.headers.getlist(name) for name in (SIGNATURE_HEADER, TIMESTAMP_HEADER)
        )
        verify(body, signatures, timestamps, self._secrets, time.time(), self._tolerance)

    def _ask(self, project_hash: UUID, stage_uuid: UUID) -> tuple[StageTask, AskedSweep]:
        """Ask for a sweep; in a thread."""
        task = self._served.task_at(project_hash, stage_uuid)
        return task, ask(task, countdown=GATHERING, max_in_flight=self._max_in_flight)


def _ignored(why: str) -> Response:
    logger.info("Ignored a notification of Encord's: %s", writable(why))
    return JSONResponse({"status": "ignored", "detail": why, "sweep": None})


def _asked(heard: Notification, task: StageTask, asked: AskedSweep) -> Response:
    stage = task.stage_agent.stage
    logger.info(
        "Encord notified that %s agent tasks wait at %s (%s); message %s sweeps it",
        "some" if heard.pending_count is None else heard.pending_count,
        stage,
        writable((heard.reason or "no reason")[:100]),
        asked.id,
    )
    waits = "will be swept" if asked.is_new else "will be swept, as was asked for before"
    return JSONResponse({"status": "asked", "detail": f"Stage {str(stage)!r} {waits}.", "sweep": asked.id})
