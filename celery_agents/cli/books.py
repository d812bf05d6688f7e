"""The ledgers of an app, for the commands that read and correct them: which there are, and how a record is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from celery import Celery

from celery_agents.cli.declarations import agent_tasks, chosen
from celery_agents.cli.sentences import CommandError, reason, sentence
from celery_agents.cli.terminal import Terminal
from celery_agents.task import StageTask

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.ledger import Ledger, Record

Answer = TypeVar("Answer")

#: The exit code where something that was asked about is not known, or was left out. The same as ``agents status`` has.
NOT_ALL = 3

NO_LEDGER = (
    "This app has no ledger, which remembers what is in flight, what became of each agent task and what failed: "
    'switch it on with app.conf.agents_ledger_url = "redis://…" (Redis 6.2 or newer, or Valkey), here and in '
    "the workers."
)


class Book:
    """One project's ledger, and those of its agents that a command is about."""

    def __init__(self, ledger: Ledger, tasks: Sequence[StageTask], *, all_stages: bool) -> None:
        self.ledger = ledger
        self.tasks = tasks
        self.trouble: str | None = None  #: why Encord could not be asked, if it could not
        self._all_stages = all_stages

    @cached_property
    def by_stage(self) -> dict[UUID, StageTask]:
        """The agents by their stage; asks Encord for the UUID of a stage that was declared by its title."""
        return {stage_uuid(task): task for task in self.tasks}

    @property
    def asked_for(self) -> list[UUID | None]:
        """The stages that were named; only None where none were, which then are all, also those without an agent."""
        return [None] if self._all_stages else list(self.by_stage)

    def stages(self) -> list[AgentStage]:
        """Return the stages of the agents; nothing, and why in ``trouble``, where Encord cannot be asked."""
        return self._ask(lambda: [task.agent_stage for task in self.tasks], [])

    def title_of(self, uuid: UUID) -> str:
        """Return a stage's title, or its UUID where Encord does not know it or cannot be asked."""
        return self._titles.get(uuid, str(uuid))

    @cached_property
    def _titles(self) -> dict[UUID, str]:
        gateway = self.tasks[0].runner.gateway
        return self._ask(lambda: {stage.uuid: stage.title for stage in gateway.agent_stages()}, {})

    def _ask(self, ask: Callable[[], Answer], otherwise: Answer) -> Answer:
        """Ask Encord, once: where that is in vain it is not asked again, and ``trouble`` says why."""
        if self.trouble is not None:
            return otherwise
        try:
            return ask()
        except Exception as error:
            known = sentence(error, self.tasks[0].app)
            if known is None and not isinstance(error, OSError):
                raise
            self.trouble = known or reason(error)
            return otherwise


def stage_uuid(task: StageTask) -> UUID:
    """Return the UUID of an agent's stage; Encord is asked where it was declared by its title."""
    declared = task.stage_agent.stage
    return declared if isinstance(declared, UUID) else task.agent_stage.uuid


def books(app: Celery, stages: Sequence[str] = ()) -> list[Book]:
    """Return the app's ledgers, one for each project, with the agents of *stages*, or with all.

    Raises:
        CommandError: There is none.
        click.UsageError: A stage has no agent here.
    """
    of_project: dict[UUID, list[StageTask]] = {}
    for task in chosen(agent_tasks(app), stages):
        of_project.setdefault(task.runner.project_hash, []).append(task)
    found = [
        Book(tasks[0].runner.ledger, tasks, all_stages=not stages)
        for tasks in of_project.values()
        if tasks[0].runner.ledger is not None
    ]
    if not found:
        raise CommandError(NO_LEDGER)
    return found


def warn_of_trouble(terminal: Terminal, all_books: Iterable[Book]) -> None:
    """Say why stages have no titles, where Encord could not be asked for them."""
    for book in all_books:
        if book.trouble:
            terminal.warn(
                "stages are shown by their UUIDs, and what is in flight may be missing, because Encord could not be "
                f"asked: {book.trouble}"
            )


def when(instant: datetime) -> str:
    """Return *instant*, which is in UTC, for people."""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def record_row(record: Record, book: Book) -> dict[str, Any]:
    """Return a record for scripts."""
    outcome = record.outcome
    return {
        "task_uuid": record.task_uuid,
        "data_hash": outcome.data_hash,
        "data_title": outcome.data_title,
        "stage": book.title_of(record.stage_uuid),
        "stage_uuid": record.stage_uuid,
        "outcome": outcome.outcome.value,
        "pathway": outcome.pathway_name or outcome.pathway,
        "detail": outcome.detail,
        "at": record.at.isoformat(),
        "worker": record.where,
        "message_id": record.message_id,
        "attempts": record.attempts,
        "error": outcome.error.model_dump(mode="json") if outcome.error else None,
        "earlier_errors": [each.model_dump(mode="json") for each in outcome.earlier_errors],
    }
