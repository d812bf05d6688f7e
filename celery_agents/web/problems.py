"""Errors as problem details (RFC 9457): a status, and one sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from celery_agents.errors import AgentsError, LedgerError, SetupError, SpecError
from celery_agents.redaction import redact
from celery_agents.web.served import NotServedError

#: Longest body that is read, in bytes. A task spec has some hundred, a notification too.
LONGEST_BODY = 256 * 1024
#: Seconds after which somebody may try again what a broker, a ledger or Encord was not there for.
RETRY_AFTER = 5


class Problem(BaseModel):
    """Why a request could not be answered as wished."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "There is no agent for stage 'Prelabel' here; there are: 'Pre-label'.",
            }
        },
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class UnknownError(AgentsError):
    """Raised where nothing is known of what is asked for, or it is none of the agents'."""


class InFlightError(AgentsError):
    """Raised where an agent task is in another message already."""

    def __init__(self, detail: str, message_id: str) -> None:
        super().__init__(detail)
        self.message_id = message_id


class TooLongError(HTTPException):
    """Raised while a body is read that is too long; FastAPI lets its own exceptions through there, and no others."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has at most {LONGEST_BODY:,} bytes here."
        )


#: Error -> status. What is not in here is a fault of ours, and the application around answers 500.
STATUS: dict[type[AgentsError], HTTPStatus] = {
    NotServedError: HTTPStatus.NOT_FOUND,
    UnknownError: HTTPStatus.NOT_FOUND,
    InFlightError: HTTPStatus.CONFLICT,
    SpecError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SetupError: HTTPStatus.SERVICE_UNAVAILABLE,
    LedgerError: HTTPStatus.SERVICE_UNAVAILABLE,
}

#: What OpenAPI says of each.
_MEANINGS = {
    401: "Not authenticated.",
    404: "Nothing is known of it, or it is none of the agents'.",
    409: "The agent task is in another message.",
    413: "The body is too long.",
    422: "What was sent cannot be used.",
    501: "A version of the notification that is not known.",
    503: "The broker, the result backend, the ledger or Encord cannot be used at present.",
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of these statuses."""
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in statuses}


def response(status: int, detail: str, **more: Any) -> JSONResponse:
    """Return a problem."""
    problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {"Retry-After": str(RETRY_AFTER)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse({**problem, **more}, status, headers, media_type=ProblemRoute.media_type)


class ProblemRoute(APIRoute):
    """A route whose errors are problems, whatever the application around makes of its own."""

    media_type: ClassVar[str] = "application/problem+json"

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(_bounded(request))
            except TooLongError as error:
                return response(error.status_code, str(error.detail))
            except RequestValidationError as error:
                return _of_request(error)
            except AgentsError as error:
                return _of_ours(error)

        return answer


def _bounded(request: Request) -> Request:
    """Return *request* with a body that cannot be too long: FastAPI reads it before it knows who sends it.

    Raises:
        TooLongError: It says itself that it is too long.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > LONGEST_BODY:
        raise TooLongError
    return Request(request.scope, _counted(request.receive))


def _counted(receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    left = LONGEST_BODY

    async def counted() -> Any:
        nonlocal left
        event = await receive()
        left -= len(event.get("body", b""))
        if left < 0:
            raise TooLongError
        return event

    return counted


def _of_request(error: RequestValidationError) -> Response:
    # Without what was sent: it may be long, and is known to whoever sent it.
    errors = [{"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()]
    first = errors[0]
    return response(422, f"The request cannot be used: {first['where']}: {first['what']}.", errors=errors)


def _of_ours(error: AgentsError) -> Response:
    status = next((found for kind, found in STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        raise error
    more = {"message_id": error.message_id} if isinstance(error, InFlightError) else {}
    return response(status, redact(str(error)), **more)
