"""Whose agents are served: those of one runner, or all of an app. Nothing else can be reached through the web."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.errors import AgentsError, DeclarationError, SetupError
from celery_agents.redaction import redact
from celery_agents.runner import QueueRunner
from celery_agents.task import StageTask

if TYPE_CHECKING:
    from celery import Celery
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.ledger import Ledger


class NotServedError(AgentsError):
    """Raised where a project or a stage is asked for that has no agent here."""


class Served:
    """The agents that are served.

    Args:
        source: A runner, or the app of several; modules that declare an app's agents must be imported by then.

    Raises:
        DeclarationError: It is neither.
    """

    def __init__(self, source: QueueRunner | Celery) -> None:
        if not isinstance(source, QueueRunner) and not hasattr(source, "tasks"):
            raise DeclarationError(f"Give a QueueRunner or a Celery app, not {type(source).__name__}.")
        self._source = source

    @property
    def app(self) -> Celery:
        """Who sends the messages, and whose result backend is asked."""
        return self._source.app if isinstance(self._source, QueueRunner) else self._source

    @property
    def tasks(self) -> tuple[StageTask, ...]:
        """The Celery tasks of the agents."""
        if isinstance(self._source, QueueRunner):
            return self._source.stage_tasks
        return tuple(task for task in self._source.tasks.values() if isinstance(task, StageTask))

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """The projects' ledgers, at least one.

        Raises:
            SetupError: A project has none.
        """
        by_project = {task.runner.project_hash: task.runner.ledger for task in self.tasks}
        ledgers = tuple(each for each in by_project.values() if each is not None)
        if not ledgers or len(ledgers) < len(by_project):
            raise SetupError(
                "Which messages are those of agents is known from the ledger, and the app has none: set "
                "agents_ledger_url to a Redis or Valkey."
            )
        return ledgers

    def task_for(self, stage: str, project_hash: UUID | None = None) -> StageTask:
        """Return the Celery task of a stage's agent, by the stage's title or UUID as declared.

        Raises:
            NotServedError: There is none, or of several projects none is named.
        """
        found = [
            task for task in self._of(project_hash) if stage.lower() == str(task.stage_agent.stage).lower()
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotServedError(
                f"Several projects have an agent for stage {stage[:200]!r}: name the project_hash."
            )
        declared = ", ".join(repr(str(task.stage_agent.stage)) for task in self.tasks) or "none"
        raise NotServedError(f"There is no agent for stage {stage[:200]!r} here; there are: {declared}.")

    def task_at(self, project_hash: UUID, stage_uuid: UUID) -> StageTask:
        """Return the Celery task of a stage's agent, by the stage's UUID; asks Encord once for each declared stage.

        Raises:
            NotServedError: The project or the stage has no agent here.
            SetupError: Encord cannot be asked which stages those are that were declared by their titles.
        """
        tasks = self._of(project_hash)
        if not tasks:
            raise NotServedError(f"Project {project_hash} has no agent here.")
        troubles: list[SetupError] = []
        for task in tasks:
            try:
                if stage_uuid in (task.stage_agent.stage, stage_of(task).uuid):
                    return task
            except SetupError as error:  # a mistake in one declaration keeps no other stage from being swept
                troubles.append(error)
        if troubles:
            raise troubles[0]
        raise NotServedError(f"Stage {stage_uuid} of project {project_hash} has no agent here.")

    def _of(self, project_hash: UUID | None) -> Sequence[StageTask]:
        return [task for task in self.tasks if project_hash in (None, task.runner.project_hash)]


def stage_of(task: StageTask) -> AgentStage:
    """Return the stage of an agent; uses the network at first.

    Raises:
        SetupError: There is no key, no such project or stage, or Encord cannot be reached.
    """
    with encord_explained(f"about stage {str(task.stage_agent.stage)!r}"):
        return task.agent_stage


@contextmanager
def encord_explained(about: str) -> Iterator[None]:
    """Turn what Encord, the SDK or the network answers into a SetupError; errors of ours stay."""
    try:
        yield
    except AgentsError:
        raise
    except Exception as error:  # the SDK raises errors of its own, and those of what it is made of
        said = " ".join(redact(str(error)).split())
        raise SetupError(
            f"Encord cannot be asked {about} at present: {type(error).__name__}: {said[:500]}"
        ) from error
