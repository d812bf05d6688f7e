"""Enqueue, poll, follow and cancel over HTTP: the routes. What they do is in ``sending``, ``lookup``, ``streams``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from celery_agents import results
from celery_agents.errors import DeclarationError
from celery_agents.producer.asked import AskedSweep, ask
from celery_agents.producer.publishing import connected
from celery_agents.results import AgentResult
from celery_agents.runner import QueueRunner
from celery_agents.web import documents, lookup, streams
from celery_agents.web.calls import Blocking, Shared
from celery_agents.web.problems import ProblemRoute, described
from celery_agents.web.sending import send
from celery_agents.web.served import Served, stage_of
from celery_agents.web.signature import Secrets
from celery_agents.web.webhook import webhook

if TYPE_CHECKING:
    from celery import Celery

#: Seconds without news after which a stream shows that it is alive; proxies often cut what is silent for a minute.
HEARTBEAT = 15.0


class NoAuthentication:
    """The type of ``NO_AUTHENTICATION``."""

    def __repr__(self) -> str:
        return "NO_AUTHENTICATION"


#: For ``router(authenticate=…)``: whoever can reach it may enqueue, read and cancel.
NO_AUTHENTICATION: Final = NoAuthentication()


def router(
    source: QueueRunner | Celery,
    *,
    authenticate: Callable[..., Any] | NoAuthentication | None = None,
    webhook_secrets: str | Iterable[str] | None = None,
    max_in_flight: int | None = None,
    heartbeat: float = HEARTBEAT,
) -> APIRouter:
    """Return a router by which agent tasks are enqueued, polled, followed and cancelled over HTTP.

        web = FastAPI()
        web.include_router(router(runner, authenticate=signed_in), prefix="/agents")

    Only what was declared as an agent can be enqueued, and only messages for agents can be read and cancelled. Errors
    are problem details. It needs the ledger: from there it is known which messages those are.

    Args:
        source: The runner whose agents are served, or the app of several; its modules must be imported by then.
        authenticate: A FastAPI dependency that raises, or returns False, where the request may not pass. It must be
            given; ``NO_AUTHENTICATION`` lets everybody in. Encord's webhook has its signature instead.
        webhook_secrets: See ``webhook``, whose route is added where there is a secret, here or in the environment.
        max_in_flight: See ``webhook``; for sweeps that are asked for here, too.
        heartbeat: Seconds without news after which a stream sends a comment.

    Raises:
        DeclarationError: *authenticate* is not given or cannot be called, or *source* is no runner and no app.
    """
    served = Served(source)
    whole = APIRouter()
    whole.include_router(_Api(served, max_in_flight, heartbeat).router(_dependencies(authenticate)))
    if Secrets.if_any(webhook_secrets) is not None:
        whole.include_router(webhook(source, webhook_secrets, max_in_flight=max_in_flight))
    return whole


def _dependencies(authenticate: object) -> list[Any]:
    if isinstance(authenticate, NoAuthentication):
        return []
    if not callable(authenticate):
        raise DeclarationError(
            "router(authenticate=…) takes a FastAPI dependency that raises where a request may not pass. To let "
            "everybody in who can reach it, say so: authenticate=NO_AUTHENTICATION."
        )

    async def let_in(verdict: Any = Depends(authenticate)) -> None:  # noqa: B008  # an annotation names no local
        # FastAPI itself does not look at what a dependency returns.
        if verdict is False:
            raise HTTPException(401, "Not authenticated.")

    return [Depends(let_in)]


class _Api:
    """The routes, and what they share."""

    def __init__(self, served: Served, max_in_flight: int | None, heartbeat: float) -> None:
        self._served, self._max_in_flight, self._heartbeat = served, max_in_flight, heartbeat
        self._blocking = Blocking()
        self._asking: Shared[AskedSweep] = Shared()
        self._lookout = streams.Lookout(served, self._blocking)

    def router(self, dependencies: list[Any]) -> APIRouter:
        """Return the routes."""
        router = APIRouter(
            route_class=ProblemRoute,
            dependencies=dependencies,
            tags=["agents"],
            responses=described(401) if dependencies else {},
        )
        router.get("/stages", response_model=list[documents.StageDocument])(self.stages)
        router.post(
            "/messages",
            status_code=202,
            response_model=documents.MessageDocument,
            responses=described(404, 409, 413, 422, 503),
        )(self.enqueue_spec)
        router.get(
            "/messages/{message_id}",
            response_model=documents.MessageDocument,
            responses=described(404, 503),
        )(self.message)
        router.get(
            "/messages/{message_id}/events",
            response_class=StreamingResponse,
            responses={200: {"content": {"text/event-stream": {}}}, **described(404, 503)},
        )(self.events)
        router.post(
            "/messages/{message_id}/cancel",
            status_code=202,
            response_model=documents.MessageDocument,
            responses={
                200: {"model": documents.MessageDocument, "description": "It had ended before."},
                **described(404, 503),
            },
        )(self.cancel)
        router.get(
            "/agent-tasks/{uuid}",
            response_model=documents.AgentTaskDocument,
            responses=described(404, 422, 503),
        )(self.agent_task)
        router.post(
            "/sweeps",
            status_code=202,
            response_model=documents.AskedDocument,
            responses=described(404, 413, 422, 503),
        )(self.enqueue_stage)
        router.get(
            "/sweeps/{message_id}", response_model=documents.SweepDocument, responses=described(404, 503)
        )(self.sweep)
        return router

    async def stages(self) -> Response:
        """List the stages that have an agent here."""
        return JSONResponse(
            [
                {
                    "stage": str(task.stage_agent.stage),
                    "project_hash": str(task.runner.project_hash),
                    "task": task.name,
                    "queue": task.queue_name,
                }
                for task in self._served.tasks
            ]
        )

    async def enqueue_spec(self, request: Request, wanted: documents.SpecRequest) -> Response:
        """Send one agent task to the agent of its stage; the answer, and the header Location, tell where to look."""
        task = self._served.task_for(wanted.stage, wanted.project_hash)
        result = await self._blocking(send, task, wanted.spec, force=wanted.force)
        return _accepted(request, result.id, (await self._look(result.id)).as_dict())

    async def message(self, message_id: str) -> Response:
        """Tell what is known of a message: status, progress, outcomes and errors."""
        return JSONResponse((await self._look(message_id)).as_dict())

    async def events(self, message_id: str) -> Response:
        """Follow a message by server-sent events.

        `progress` comes when something is new, and `end` when the message has ended, each with what `GET` of the
        message gives. The stream ends with `end`; a browser's EventSource has to be closed then, or it connects again.
        """
        self._lookout.admit()
        result = await self._blocking(lookup.message, self._served, message_id)
        return StreamingResponse(
            streams.events(self._lookout, result, self._heartbeat),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},  # nginx would wait for more
        )

    async def cancel(self, message_id: str) -> Response:
        """Cancel a message: what runs ends after the agent task that it is on, and what waits is not begun."""
        result = await self._blocking(lookup.message, self._served, message_id)
        assert result.latest is not None  # looked at by lookup
        if result.latest.is_final:
            return JSONResponse(result.latest.as_dict())
        await self._blocking(_cancel, result)
        return JSONResponse((await self._look(message_id)).as_dict(), 202)

    async def agent_task(self, uuid: UUID) -> Response:
        """Tell what became of an agent task, by its UUID or that of its data unit, and which message has it."""
        return JSONResponse(await self._blocking(lookup.agent_task, self._served, uuid))

    async def enqueue_stage(self, request: Request, wanted: documents.SweepRequest) -> Response:
        """Have a worker send everything that waits at a stage; asked for twice before it begins, it is one sweep."""
        task = self._served.task_for(wanted.stage, wanted.project_hash)

        def ask_for_it() -> AskedSweep:
            stage_of(task)
            return ask(task, max_in_flight=self._max_in_flight)

        asked = await self._asking(task.name, partial(self._blocking, ask_for_it))
        return _accepted(request, asked.id, {"id": asked.id, "is_new": asked.is_new})

    async def sweep(self, message_id: str) -> Response:
        """Tell what is known of a sweep, and which messages it has sent."""
        return JSONResponse(await self._blocking(lookup.sweep, self._served, message_id))

    async def _look(self, message_id: str) -> Any:
        return (await self._blocking(lookup.message, self._served, message_id)).latest


def _cancel(result: AgentResult) -> None:
    with connected(result.app) as producer:
        results.cancel(result.app, [result.id], connection=producer.connection)


def _accepted(request: Request, message_id: str, content: dict[str, Any]) -> Response:
    return JSONResponse(content, 202, {"Location": f"{request.url.path.rstrip('/')}/{message_id}"})
