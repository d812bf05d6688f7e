"""Every error that celery_agents raises, and when.

    AgentsError                  base of all of them
    ├── DeclarationError         a decorator, an option or a signature is wrong        (at import)
    ├── SetupError               key, project, stage or broker cannot be used as set   (at first use)
    ├── SpecError                what came as a task spec is not one                   (per agent task)
    ├── AnswerError              what the agent returned cannot be acted on            (per agent task)
    ├── DownloadError            media could not be fetched                            (per agent task)
    ├── PoisonError              an agent task was running each time a worker died     (per agent task)
    ├── AgentRetryError          an agent asked for another attempt                    (per agent task)
    ├── TimedOutError            an agent took longer than its time limit              (per agent task)
    ├── ExpiredError             the time is up                                        (Progress.update, query)
    ├── Cancelled                the message was cancelled                             (Progress.update, query)
    ├── AgentTaskError           a message failed; carries its completion result       (Celery's FAILURE)
    ├── RetryingError            a message goes round again; carries what is decided   (Celery's RETRY)
    ├── CancelledMessageError    a message was cancelled; carries what is decided      (Celery's REVOKED)
    ├── LedgerError              the ledger's Redis cannot be used                     (per call; go on without)
    └── ResultNotReadyError      a result was read before there was one

Errors that Celery stores must survive its JSON result backend, which keeps only the class path and ``args``:
these three therefore pass everything through ``args``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from celery_agents.messages import TaskCompletionResult, TaskOutcome


class AgentsError(Exception):
    """Base of every error raised by celery_agents."""


class DeclarationError(AgentsError, TypeError):
    """Raised when decorating: an unknown option, a parameter that cannot be injected, a second agent for a stage."""


class SetupError(AgentsError):
    """Raised on first use or by ``agents check``: no Encord key, a project or stage that is not there, no broker."""


class SpecError(AgentsError, ValueError):
    """Raised when something that should be a task spec is not JSON, lacks a field, or is for another stage."""


class AnswerError(AgentsError, ValueError):
    """Raised for what an agent returned: an unknown pathway, a type that is no answer, a priority out of range."""


class DownloadError(AgentsError):
    """Raised when media cannot be fetched.

    Attributes:
        transient: Whether trying again later may help (connection trouble, 429, 5xx).
        status: The HTTP status of the last attempt, or None where there was no answer.
    """

    def __init__(self, detail: str, *, transient: bool = False, status: int | None = None) -> None:
        super().__init__(detail)
        self.transient = transient
        self.status = status


class LedgerError(AgentsError):
    """Raised by every operation of the ledger when its Redis cannot be used; what it held is not needed to go on."""


class AgentRetryError(AgentsError):
    """Raised by ``self.retry()`` in an agent, see ``StageTask.retry``: this agent task goes round again.

    Attributes:
        reason: What the agent gave as ``exc``, or None.
        countdown: Seconds until the next attempt, or None where the stage's options say.
        max_retries: How many retries this agent task may have, or None where the stage's options say.
    """

    def __init__(
        self,
        reason: BaseException | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
    ) -> None:
        super().__init__("It asked for another attempt.")
        self.reason = reason
        self.countdown = countdown
        self.max_retries = max_retries


class PoisonError(AgentsError):
    """Kept for an agent task whose agent kills the worker process that runs it: by memory, a fault, or an exit."""


class TimedOutError(AgentsError, TimeoutError):
    """Kept for an agent task whose agent took longer than the stage's ``soft_time_limit`` or ``time_limit``.

    ``Progress.update`` raises it where the process cannot interrupt the agent: in pools of threads and of greenlets.
    """


class ExpiredError(AgentsError, TimeoutError):
    """Raised when the time is up: by ``Progress.update`` after the message's ``expires``, and by ``runner.query``.

    Attributes:
        outcomes: Of a query, what was decided in time: agent task -> outcome. Where one is missing its agent task is as
            it was, unless a worker is at it.
        leaves_agent_task: Whether ``Progress.update`` raised it: the agent task did not fail, and stays as it was.
    """

    leaves_agent_task = False

    def __init__(self, detail: str, outcomes: Mapping[UUID, TaskOutcome] | None = None) -> None:
        super().__init__(detail)
        self.outcomes: Mapping[UUID, TaskOutcome] = outcomes or {}


class Cancelled(AgentsError):  # noqa: N818  (it says what happened; nothing is wrong)
    """Raised by ``Progress.update`` in an agent whose message was cancelled, and by ``runner.query``.

    Attributes:
        leaves_agent_task: As of ``ExpiredError``.
    """

    leaves_agent_task = False


class ResultNotReadyError(AgentsError):
    """Raised when the outcomes of a message are read before it has any."""


class CarriesResultError(AgentsError):
    """What errors share that Celery stores for a message: a sentence, and the completion result as JSON.

    They travel in ``args``, which is what Celery's JSON result backends keep of an exception.
    """

    def __init__(self, detail: str = "", result_json: str = "", total: int | None = None) -> None:
        super().__init__(detail, result_json, total)

    @property
    def detail(self) -> str:
        """What happened, in one sentence."""
        return str(self.args[0])

    @property
    def total(self) -> int | None:
        """How many agent tasks the message has, where more of them are than have an outcome."""
        return self.args[2] if len(self.args) > 2 else None

    @property
    def result(self) -> TaskCompletionResult:
        """The completion result, with one outcome for each agent task that has one."""
        from celery_agents.messages import TaskCompletionResult

        return TaskCompletionResult.model_validate_json(self.args[1])

    def __str__(self) -> str:
        return self.detail

    def __repr__(self) -> str:
        # Flower, logs and Sentry show the repr: the JSON would drown the sentence.
        return f"{type(self).__name__}({self.detail!r})"


class AgentTaskError(CarriesResultError):
    """Raised in the worker, and by ``AsyncResult.get()``, for a message that its stage's failure policy calls failed.

    ``.detail`` is the sentence that Flower and ``link_error`` show, ``.result`` the completion result.
    """


class RetryingError(CarriesResultError):
    """Stored by Celery while a message waits for its retry; ``.result`` holds the outcomes decided so far."""


class CancelledMessageError(CarriesResultError):
    """Stored by Celery for a message that was cancelled after some of its agent tasks were decided.

    ``.result`` holds their outcomes; the others are as they were, and the next sweep sends them.
    """
