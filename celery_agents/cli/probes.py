"""What ``agents check`` looks at. Each probe yields what it finds, and stops where the rest needs what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import Celery
from celery.backends.base import DisabledBackend

from celery_agents.cli import clocks
from celery_agents.cli.declarations import function_path
from celery_agents.cli.findings import Finding, Verdict, failed, note, ok, warning
from celery_agents.cli.sentences import backend_is_down, broker_is_down, encord_refuses
from celery_agents.cli.workers import CONNECT_TIMEOUT, PATIENT_TIMEOUT, Listeners, can_be_asked, listeners
from celery_agents.errors import LedgerError, SetupError
from celery_agents.settings import Settings
from celery_agents.task import StageTask

if TYPE_CHECKING:
    from celery_agents.gateway.project import Gateway
    from celery_agents.runner import QueueRunner


def encord(runner: QueueRunner, tasks: Sequence[StageTask]) -> Iterator[Finding]:
    """Look at key, project, clock, stages and pathways of one runner."""
    gateway = runner.gateway
    try:
        domain = gateway.domain
    except SetupError as error:
        yield failed("key", str(error))
        return
    project = list(_project(gateway, domain))
    yield from project
    # Also where the key is refused: a clock that differs makes every signature look old.
    yield from filter(None, [clocks.compare("Encord", lambda: clocks.encords(domain))])
    if project[-1].verdict is Verdict.OK:
        yield from _stages(gateway, tasks)


def _project(gateway: Gateway, domain: str) -> Iterator[Finding]:
    from celery_agents.gateway.classify import CREDENTIAL_ERRORS, EncordException

    try:
        project = gateway.project
    except SetupError as error:
        if isinstance(error.__cause__, CREDENTIAL_ERRORS):
            yield failed(
                "key", str(error), "add its public half at Encord under Settings > Public keys, and see clock"
            )
            return
        yield ok("key", f"accepted by {domain}")
        yield failed("project", str(error))
    except EncordException as error:
        yield failed("key", encord_refuses(error))
    else:
        yield ok("key", f"accepted by {domain}")
        yield ok("project", f"{project.title} ({gateway.project_hash})")


def _stages(gateway: Gateway, tasks: Sequence[StageTask]) -> Iterator[Finding]:
    titles = {stage.uuid: stage.title for stage in gateway.project.workflow.stages}
    served = set()
    for task in tasks:
        try:
            stage = gateway.agent_stage(task.stage_agent.stage)
        except SetupError as error:
            yield failed("stage", f"{error} ({function_path(task)})", "correct the name in @runner.stage")
            continue
        served.add(stage.uuid)
        yield ok("stage", f"{stage.title}: {function_path(task)}")
        yield _pathways(stage, titles)
    for stage in gateway.agent_stages():
        if stage.uuid not in served:
            yield note("stage", f"{stage.title}: no agent here serves it")


def _pathways(stage: Any, titles: Mapping[Any, str]) -> Finding:
    if not stage.pathways:
        return warning("pathways", f"{stage.title} has none: its agent tasks can only be held")
    leads_to = [f"{each.name} → {titles.get(each.destination_uuid, '?')}" for each in stage.pathways]
    return ok("pathways", ", ".join(leads_to))


def broker(app: Celery, tasks: Sequence[StageTask], worker_command: str) -> Iterator[Finding]:
    """Look at the broker and, over it, at the workers."""
    with app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_TIMEOUT)
        except Exception as error:  # noqa: BLE001 - whatever a transport raises
            yield failed("broker", broker_is_down(app, error))
            return
        yield ok("broker", f"{connection.as_uri()} accepts connections")
        yield from filter(None, [clocks.compare("the broker", lambda: clocks.brokers(connection))])
    if not can_be_asked(app):
        yield note("workers", "this broker cannot broadcast, so workers cannot be asked")
        return
    yield from _workers(app, tasks, worker_command)


def _workers(app: Celery, tasks: Sequence[StageTask], worker_command: str) -> Iterator[Finding]:
    found = listeners(app, with_tasks=True, timeout=PATIENT_TIMEOUT)
    queues: dict[str, list[StageTask]] = {}
    for task in tasks:
        queues.setdefault(task.queue_name, []).append(task)
    for queue, served in queues.items():
        names = found.of_queue(queue)
        if names:
            yield ok("workers", f"queue {queue!r}: {', '.join(names)}")
            yield from _ignorant(found, queue, served)
        else:
            stages = ", ".join(str(task.stage_agent.stage) for task in served)
            yield warning(
                "workers",
                f"queue {queue!r} ({stages}): no worker answers, so messages wait",
                f"start one: {worker_command} -Q {queue}",
            )


def _ignorant(found: Listeners, queue: str, tasks: Sequence[StageTask]) -> Iterator[Finding]:
    for task in tasks:
        for worker in found.without_task(queue, task.name):
            yield failed(
                "workers",
                f"{worker} consumes queue {queue!r} but does not know {task.name}: it drops its messages",
                "restart it with this app's code, or give it another queue",
            )


def ledger(app: Celery, runners: Iterable[QueueRunner]) -> Iterator[Finding]:
    """Look at the settings for agents, and at the ledgers."""
    try:
        settings = Settings.of(app)
        ledgers = {runner.project_hash: runner.ledger for runner in runners} if settings.ledger_url else {}
    except (SetupError, LedgerError) as error:
        yield failed("ledger", str(error))
        return
    if settings.ledger_url is None:
        yield warning(
            "ledger",
            "there is none: what is enqueued twice runs twice, and what kills its process does so again and again",
            'set agents_ledger_url = "redis://…" (Redis 6.2 or newer, or Valkey)',
        )
    for each in ledgers.values():
        try:
            yield ok("ledger", each.check() if each else "")
        except LedgerError as error:
            yield failed("ledger", str(error))
    if settings.rate_limit:
        limit = f"{settings.rate_limit:g} calls to Encord a second, for all processes of a project together"
        yield ok("rate limit", limit)


def backend(app: Celery) -> Iterator[Finding]:
    """Write, read and forget a result."""
    chosen = app.backend
    if isinstance(chosen, DisabledBackend):
        yield warning(
            "backend",
            "no result backend is set: status, progress and outcomes cannot be asked for",
            "set result_backend, for instance to the URL of your Redis",
        )
        return
    where = chosen.as_uri()
    if app.conf.result_backend.startswith("rpc"):
        yield note(
            "backend", f"{where}: only the process that sent a message gets its result, not `agents status`"
        )
        return
    try:
        _write_and_read(chosen)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        yield failed("backend", backend_is_down(app, error))
    else:
        yield ok("backend", f"{where} stores and returns results")


def _write_and_read(chosen: Any) -> None:
    ping = getattr(getattr(chosen, "client", None), "ping", None)
    if ping is not None:
        ping()  # Redis: refuses at once, where storing a result would be tried again for a long time
    probe = f"agents-check-{uuid4()}"  # expires like any result, should forgetting it fail
    chosen.store_result(probe, True, "SUCCESS")
    state = chosen.get_task_meta(probe, cache=False)["status"]
    chosen.forget(probe)
    if state != "SUCCESS":
        raise RuntimeError(f"a result that was just stored reads as {state}")
