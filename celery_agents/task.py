"""The Celery task that stands for one agent: decode the message, execute it, tell Celery what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from celery import Celery, Task, states
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger

from celery_agents.agent import Agent
from celery_agents.batch import Batch, Execution
from celery_agents.delivery import Delivery, Ledgered, Unledgered
from celery_agents.errors import AgentTaskError, CancelledMessageError, RetryingError
from celery_agents.executor import execute
from celery_agents.messages import Carry, Outcome, Progress, TaskCompletionResult, TaskOutcome, as_specs
from celery_agents.options import FailurePolicy, StageOptions
from celery_agents.status import PROGRESS
from celery_agents.supervision import Supervision

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.runner import QueueRunner

logger = get_task_logger(__name__)

#: Seconds between two progress reports of one message: two writes a second at most, none for a quick batch.
REPORT_INTERVAL = 0.5
#: How much of a message's soft time limit is used to begin agent tasks: the last one, and the commit, need some too.
SHARE_OF_TIME_LIMIT = 0.8
#: Seconds that a direct call waits in all for passing trouble to pass, before it gives up on what is left.
PATIENCE_HERE = 30.0


@dataclass(frozen=True, slots=True)
class StageAgent:
    """What ``@runner.stage`` declared: the user's function for one stage, and its options."""

    stage: str | UUID  #: title or UUID, as declared
    function: Callable[..., Any]
    options: StageOptions
    agent: Agent


@dataclass(slots=True)
class Declaration:
    """What a Celery task stands for at present: its agent, and the runner that declared it.

    Celery keeps the first callable that is registered under a name. Declaring a stage again, as a notebook does when a
    cell is run again, must not leave the old agent in charge: the task stays and its declaration changes.
    """

    runner: QueueRunner
    stage_agent: StageAgent


class StageTask(Task):  # type: ignore[misc]  # celery ships no types
    """A Celery task that runs an agent on batches of task specs.

    In a worker it is called with one spec or a list of them. Called directly (``pre_label(spec)``) it runs here and
    returns the JSON of the ``TaskCompletionResult``.
    """

    abstract = True
    declaration: ClassVar[Declaration]
    #: What a worker keeps of a message; a name, because whoever only sends needs no worker.
    Request = "celery_agents.worker.request:AgentRequest"
    #: How a worker takes in a message: what is none of agent tasks is refused.
    Strategy = "celery_agents.worker.admission:strategy"

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Give a message time for what one agent task may take: the app's limits are for messages."""
        longest = cls.declaration.stage_agent.options.limits.longest
        needed = longest / (1 - SHARE_OF_TIME_LIMIT)
        if (app.conf.task_soft_time_limit or needed) < needed:
            cls.soft_time_limit = needed
        needed = max(needed, app.conf.task_soft_time_limit or 0) + 2 * longest
        if longest and (app.conf.task_time_limit or needed) < needed:
            cls.time_limit = needed

    @property
    def stage_agent(self) -> StageAgent:
        """What ``@runner.stage`` declared."""
        return self.declaration.stage_agent

    @property
    def runner(self) -> QueueRunner:
        """The runner that declared it."""
        return self.declaration.runner

    @property
    def agent(self) -> Callable[..., Any]:
        """The user's own function, to be called as itself in unit tests."""
        return self.stage_agent.function

    @property
    def agent_stage(self) -> AgentStage:
        """The SDK's agent stage; uses the network at first. Raises SetupError where it is not there."""
        return self.runner.gateway.agent_stage(self.stage_agent.stage)

    @property
    def queue_name(self) -> str:
        """The queue that messages go to when nothing else is asked for."""
        route = self.app.amqp.router.route(dict(self.stage_agent.options.routing), self.name)
        return str(route["queue"].name) if "queue" in route else str(self.app.conf.task_default_queue)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        **options: Any,
    ) -> Any:
        """Send a message, see ``celery.Task.apply_async``; the stage's queue, priority and so on are the defaults."""
        # Celery would put the beginning of the specs, with data titles, into headers, logs and Flower.
        shown = {"argsrepr": f"([{len(as_specs(args[0]))} task specs],)", "kwargsrepr": "{}"} if args else {}
        chosen = {**self.stage_agent.options.routing, **shown, **options}
        return super().apply_async(args, kwargs, task_id, producer, **chosen)

    def process(self, specs: object, carry: object = None) -> str:
        """Execute the specs of one message, or of one direct call; return the completion result's JSON.

        Raises:
            AgentTaskError: In a worker, where the stage's failure policy calls the message failed.
            celery.exceptions.Retry: In a worker, where something is worth another attempt.
        """
        if self.request.called_directly:
            return self._process_here(as_specs(specs))
        batch = Batch(as_specs(specs), Carry.decode(carry), self.runner.settings.max_spec_bytes)
        delivery = self._delivery()
        supervision = self._supervision(delivery)
        execution = execute(
            batch,
            self.stage_agent.agent,
            self.runner.gateway,
            _Reporter(self, total=len(batch.specs) + len(batch.carry.outcomes)),
            delivery=delivery,
            watch=supervision,
        )
        delivery.end(execution, batch)
        if delivery.is_superseded():
            raise Ignore("A newer delivery of this message is at work, and tells what became of it.")
        _log_failures(execution.outcomes[len(batch.carry.outcomes) :])
        result = TaskCompletionResult.from_outcomes(execution.outcomes, execution.stage_uuid)
        if execution.again and supervision.is_cancelled():
            delivery.release(execution.waiting)
            delivery.close()
            raise self._cancelled(execution, result)
        if execution.again:
            raise self._again(execution, result, delivery)
        if _is_failure(execution.outcomes, self.stage_agent.options.failure_policy):
            raise AgentTaskError(_summary(execution.outcomes), result.model_dump_json())
        return result.model_dump_json()

    def _delivery(self) -> Delivery:
        ledger = self.runner.ledger
        # task_always_eager: nothing was sent, so nothing can come twice.
        if ledger is None or self.request.is_eager:
            return Unledgered()
        return Ledgered(
            ledger,
            self.request.id,
            self.request.hostname,
            max_crashes=self.runner.settings.max_crashes,
            redelivered_after=self.runner.redelivered_after,
        )

    def _supervision(self, delivery: Delivery) -> Supervision:
        _, soft = self.request.timelimit or (None, None)
        seconds = soft or self.soft_time_limit or self.app.conf.task_soft_time_limit
        return Supervision(
            self.request.id,
            delivery,
            # A batch that would run into its soft time limit ends before; its rest goes round with a new limit.
            seconds=seconds * SHARE_OF_TIME_LIMIT if seconds else None,
            limits=self.stage_agent.options.limits,
        )

    def _process_here(self, specs: list[object]) -> str:
        """Execute without Celery: passing trouble is waited for in place, for a bounded time."""
        max_spec_bytes = self.runner.settings.max_spec_bytes
        batch = Batch(specs, max_spec_bytes=max_spec_bytes)
        patience = PATIENCE_HERE
        while True:
            execution = execute(batch, self.stage_agent.agent, self.runner.gateway, _report_nothing)
            patience -= execution.countdown
            if not execution.again or patience < 0:
                break
            time.sleep(execution.countdown)
            batch = Batch(execution.again, execution.carry, max_spec_bytes)
        outcomes = execution.given_up()
        return TaskCompletionResult.from_outcomes(outcomes, execution.stage_uuid).model_dump_json()

    def _again(self, execution: Execution, result: TaskCompletionResult, delivery: Delivery) -> Exception:
        again: Exception
        try:
            again = self.retry(
                args=[execution.again],
                kwargs={"carry": execution.carry.encode()},
                countdown=execution.countdown,
                max_retries=self.request.retries
                + 1,  # tries are counted by the executor; an interruption is none
                exc=RetryingError(_why_again(execution), result.model_dump_json(), total=execution.total),
                throw=False,
            )
        except Reject as refusal:
            # celery.app.task.Task.retry: the retry could not be sent. It would then drop the message.
            again = Reject(refusal.reason, requeue=True)
        else:
            delivery.close()
        return again

    def _cancelled(self, execution: Execution, result: TaskCompletionResult) -> Exception:
        left = len(execution.again)
        error = CancelledMessageError(
            f"It was cancelled; {left} of {execution.total} agent tasks were left as they were.",
            result.model_dump_json(),
            total=execution.total,
        )
        self.backend.mark_as_failure(self.request.id, error, request=self.request, state=states.REVOKED)
        self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        ignored: Exception = Ignore(str(error))
        return ignored


def _why_again(execution: Execution) -> str:
    number = len(execution.again)
    of_all = f"{number} of {execution.total} agent tasks go round again"
    if not execution.trouble:
        reason = (
            "the stage is paused" if execution.countdown else "the worker is stopping, or the time limit near"
        )
        return f"{of_all}: {reason}"
    latest = execution.trouble[-1]
    return f"{of_all}: {latest.type}: {latest.detail}"


class _Reporter:
    """Writes a running message's progress to the result backend, now and then."""

    def __init__(self, task: StageTask, total: int) -> None:
        self._task = task
        self._total = total
        self._written_at = time.monotonic()

    def __call__(self, done: int, failed: int) -> None:
        now = time.monotonic()
        if now - self._written_at < REPORT_INTERVAL or self._task.ignore_result:
            return
        self._written_at = now
        progress = Progress(done=done, failed=failed, total=self._total, at=datetime.now(UTC))
        try:
            self._task.update_state(state=PROGRESS, meta=progress.model_dump(mode="json"))
        except Exception as error:  # noqa: BLE001  (whatever the backend raises)
            # A result backend in trouble must not cost the batch; the result itself is written, and retried, by Celery.
            logger.warning(
                "The progress of %s could not be written: %s", self._task.request.id, type(error).__name__
            )


def _report_nothing(done: int, failed: int) -> None:
    """Report to nobody: a direct call returns when it is through."""


def _is_failure(outcomes: list[TaskOutcome], policy: FailurePolicy) -> bool:
    failed = [outcome.outcome is Outcome.FAILED for outcome in outcomes]
    if policy == "any":
        return any(failed)
    return policy == "all" and bool(failed) and all(failed)


def _summary(outcomes: list[TaskOutcome]) -> str:
    failed = [outcome for outcome in outcomes if outcome.outcome is Outcome.FAILED]
    first = failed[0].error
    reason = f"{first.type.removeprefix('builtins.')}: {first.detail}" if first else "no reason is known"
    return f"{len(failed)} of {len(outcomes)} agent tasks failed; the first with {reason}"


def _log_failures(outcomes: list[TaskOutcome]) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            logger.error(
                "Agent task %s (data unit %s) FAILED in step %s: %s",
                outcome.task_uuid or "with an unreadable spec",
                outcome.data_hash,
                outcome.error.step,
                outcome.error.traceback or f"{outcome.error.type}: {outcome.error.detail}",
            )
