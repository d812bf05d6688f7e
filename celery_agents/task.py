"""The Celery task that stands for one agent: decode the message, execute it, tell Celery what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery, Task, states
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.log import get_task_logger
from celery.utils.threads import LocalStack
from celery.utils.time import maybe_iso8601, maybe_make_aware

from celery_agents.batch import Batch, Execution
from celery_agents.declaring import StageAgent
from celery_agents.delivery import Delivery, Ledgered, Unledgered
from celery_agents.direct import Patience, work_off
from celery_agents.errors import (
    AgentRetryError,
    AgentTaskError,
    CancelledMessageError,
    LedgerError,
    RetryingError,
)
from celery_agents.executor import execute
from celery_agents.messages import Carry, Outcome, ProgressReport, TaskCompletionResult, as_specs
from celery_agents.origins import queue_of
from celery_agents.reporter import Reporter
from celery_agents.sizes import AUTO
from celery_agents.status import PROGRESS
from celery_agents.supervision import Limiting, Supervision
from celery_agents.verdicts import is_failure, log_failures, sentence

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.runner import QueueRunner

logger = get_task_logger(__name__)

#: How much of a message's soft time limit is used to begin agent tasks: the last one, and the commit, need some too.
SHARE_OF_TIME_LIMIT = 0.8
#: Seconds that a direct call waits in all for passing trouble to pass, before it gives up on what is left.
PATIENCE_HERE = 30.0


#: The message that code belongs to, wherever it runs: the name of its task, and Celery's context.
_request: ContextVar[tuple[str, Any]] = ContextVar("celery_agents.request", default=("", None))


class SupersededError(Ignore):  # type: ignore[misc]  # celery ships no types
    """The message is another worker's by now, to whom it was delivered again."""


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

    def __init_subclass__(cls, **options: Any) -> None:
        """Let threads call a task that no thread has used before: Celery registers one before it gives it a stack."""
        super().__init_subclass__(**options)
        # celery.app.task.Task.bind puts another in its place, which a direct call does not mind.
        cls.request_stack = LocalStack()

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
        queues = self.app.amqp.queues
        known = set(queues)
        route = self.app.amqp.router.route(dict(self.stage_agent.options.routing), self.name)
        for name in set(queues) - known:
            del queues[name]  # with Celery 5.6 a worker without -Q would consume what was only asked about
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

    def apply(self, *args: Any, throw: bool | None = None, **options: Any) -> Any:
        """Execute a message here, see ``celery.Task.apply``; what passes is tried again also where errors propagate."""
        try:
            return super().apply(*args, throw=throw, **options)
        except Retry as again:  # Celery itself goes on like this where they do not
            return again.sig.apply(throw=throw)

    def retry(
        self,
        *,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
    ) -> AgentRetryError:
        """In an agent, have its agent task go round again: ``raise self.retry(exc=error, countdown=60)``.

        The others of its batch are done. What is not given here is as the stage's options say.

        Args:
            exc: Why; it is what the agent task FAILED with when no retry is left.
            throw: Raise what is returned otherwise.
            eta: When, instead of *countdown*.
            countdown: Seconds until the next attempt.
            max_retries: How many retries the agent task may have.
        """
        if eta is not None:
            countdown = max(0.0, (maybe_make_aware(eta) - datetime.now(UTC)).total_seconds())
        asked = AgentRetryError(exc, countdown, max_retries)
        if throw:
            raise asked from exc
        return asked

    def replace(self, sig: Any) -> Any:
        """Refuse: the batch has other agent tasks than the one whose agent calls this."""
        raise NotImplementedError(
            "An agent cannot replace its message, which carries other agent tasks too. Send another task with delay(), "
            "or link one to the message."
        )

    def process(self, specs: object, carry: object = None) -> str:
        """Execute the specs of one message, or of one direct call; return the completion result's JSON.

        Raises:
            AgentTaskError: In a worker, where the stage's failure policy calls the message failed.
            celery.exceptions.Retry: In a worker, where something is worth another attempt.
        """
        if self.request.called_directly:
            return self._process_here(as_specs(specs))
        batch = self._batch(specs, carry)
        delivery = self._delivery()
        began = time.monotonic()
        with (
            self._reporter(total=len(batch.specs) + len(batch.carry.outcomes)) as reporter,
            self._shows_request(),
        ):
            supervision = self._supervision(delivery, reporter)
            execution = execute(
                batch,
                self.stage_agent.agent_for(self),
                self.runner.gateway,
                reporter,
                delivery=delivery,
                watch=supervision,
            )
        self._note_pace(execution, batch, time.monotonic() - began)
        delivery.end(execution, batch)
        if delivery.is_superseded():
            raise SupersededError("A newer delivery of this message tells what became of it.")
        log_failures(execution.outcomes[len(batch.carry.outcomes) :], logger)
        result = TaskCompletionResult.from_outcomes(execution.outcomes, execution.stage_uuid)
        if execution.again and (supervision.is_cancelled() or supervision.is_expired()):
            delivery.release(execution.waiting)
            delivery.close()
            raise self._left(execution, result, is_expired=supervision.is_expired())
        if execution.again:
            raise self._again(execution, result, delivery)
        failed = [each for each in execution.outcomes if each.outcome is Outcome.FAILED]
        total = len(execution.outcomes)
        if is_failure(len(failed), total, self.stage_agent.options.failure_policy):
            raise AgentTaskError(sentence(failed, total), result.model_dump_json())
        return result.model_dump_json()

    @property
    def request(self) -> Any:
        """Celery's context of the message; also in threads and coroutines of its agents, where Celery has none."""
        name, of_message = _request.get()
        own = super().request
        return of_message if own.called_directly and name == self.name else own

    @contextmanager
    def _shows_request(self) -> Iterator[None]:
        token = _request.set((self.name, self.request))
        try:
            yield
        finally:
            _request.reset(token)

    def _batch(self, specs: object, carry: object) -> Batch:
        batch = Batch(as_specs(specs), Carry.decode(carry), self.runner.settings.max_spec_bytes)
        # Its connection may have broken after its retry was sent. The ledger knows of no death then, and what is gone
        # from the stage may have been moved by this very message, with an answer that was lost.
        is_redelivered = (self.request.delivery_info or {}).get("redelivered")
        return batch.after_crash() if is_redelivered else batch

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

    def _note_pace(self, execution: Execution, batch: Batch, seconds: float) -> None:
        """Tell producers how long agent tasks take, where they go by that."""
        ledger, stage_uuid = self.runner.ledger, execution.stage_uuid
        is_asked_for = self.stage_agent.options.batch_size == AUTO and not self.request.is_eager
        decided = execution.outcomes[len(batch.carry.outcomes) :]
        number = sum(each.outcome is not Outcome.GONE for each in decided)
        if is_asked_for and ledger is not None and stage_uuid is not None and number:
            with suppress(LedgerError):
                ledger.note_pace(stage_uuid, number, seconds)

    def _reporter(self, total: int) -> Reporter:
        # What `update_state` does; but that looks for the backend and the request of the thread that calls it.
        backend, request = self.backend, self.request

        def write(report: ProgressReport) -> None:
            backend.store_result(request.id, report.model_dump(mode="json"), PROGRESS, request=request)

        is_wanted = not (self.ignore_result or request.ignore_result or request.is_eager)
        return Reporter(write if is_wanted else None, total)

    def _supervision(self, delivery: Delivery, reporter: Reporter) -> Supervision:
        _, soft = self.request.timelimit or (None, None)
        seconds = soft or self.soft_time_limit or self.app.conf.task_soft_time_limit
        return Supervision(
            self.request.id,
            delivery,
            # A batch that would run into its soft time limit ends before; its rest goes round with a new limit.
            seconds=seconds * SHARE_OF_TIME_LIMIT if seconds else None,
            limits=self.stage_agent.options.limits,
            expires=_as_instant(self.request.expires),
            hear=reporter.hear,
        )

    def _process_here(self, specs: list[object]) -> str:
        """Execute without Celery: passing trouble is waited for in place, for a bounded time."""
        agent, encord = self.stage_agent.agent_for(self), self.runner.gateway
        watch = Limiting(self.stage_agent.options.limits)
        execution = work_off(
            Batch(specs, max_spec_bytes=self.runner.settings.max_spec_bytes),
            lambda batch: execute(batch, agent, encord, _report_nothing, watch=watch),
            Patience(PATIENCE_HERE).wait,
        )
        outcomes = execution.given_up()
        return TaskCompletionResult.from_outcomes(outcomes, execution.stage_uuid).model_dump_json()

    def _again(self, execution: Execution, result: TaskCompletionResult, delivery: Delivery) -> Exception:
        again: Exception
        try:
            again = super().retry(
                args=[execution.again],
                kwargs={"carry": execution.carry.encode()},
                countdown=execution.countdown,
                queue=queue_of(self.app, self.request.delivery_info or {}),
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

    def _left(self, execution: Execution, result: TaskCompletionResult, *, is_expired: bool) -> Exception:
        """End a message that was cancelled, or that an agent was told has expired: the rest stays as it is."""
        left = len(execution.again)
        cancelled = f"It was cancelled; {left} of {execution.total} agent tasks were left as they were."
        # The word by which Celery's own TaskRevokedError tells an expired message from a revoked one, see `status`.
        reason = "expired" if is_expired else cancelled
        error = CancelledMessageError(reason, result.model_dump_json(), total=execution.total)
        self.backend.mark_as_failure(self.request.id, error, request=self.request, state=states.REVOKED)
        self.send_event("task-revoked", terminated=False, signum=None, expired=is_expired)
        ignored: Exception = Ignore(str(error))
        return ignored


def _as_instant(expires: str | datetime | None) -> datetime | None:
    """Return a message's ``expires`` as Celery sends it, as an instant."""
    if expires is None:
        return None
    instant: datetime = maybe_make_aware(maybe_iso8601(expires))
    return instant


def _why_again(execution: Execution) -> str:
    number = len(execution.again)
    of_all = f"{number} of {execution.total} agent tasks go round again"
    if not execution.trouble:
        reason = (
            "Encord is not to be called now"
            if execution.countdown
            else "the worker is stopping, or the time limit near"
        )
        return f"{of_all}: {reason}"
    latest = execution.trouble[-1]
    return f"{of_all}: {latest.type}: {latest.detail}"


def _report_nothing(done: int, failed: int) -> None:
    """Report to nobody: a direct call returns when it is through."""
