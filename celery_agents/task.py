"""The Celery task that stands for one agent: how it is sent, called and retried. ``processing`` is what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery, Task
from celery.exceptions import Retry
from celery.utils.threads import LocalStack
from celery.utils.time import maybe_make_aware

from celery_agents.declaring import StageAgent
from celery_agents.errors import AgentRetryError
from celery_agents.watch import SHARE_OF_TIME_LIMIT

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.runner import QueueRunner

#: The message that code belongs to, wherever it runs: the name of its task, and Celery's context.
_request: ContextVar[tuple[str, Any]] = ContextVar("celery_agents.request", default=("", None))


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
        # Here, so that declaring an agent imports no pydantic.
        from celery_agents.messages import as_specs

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
        # Here, because only workers need it, and what only sends is imported quickly, see `worker.startup`.
        from celery_agents.messages import as_specs
        from celery_agents.processing import process, process_here

        if self.request.called_directly:
            return process_here(self, as_specs(specs))
        return process(self, as_specs(specs), carry)

    @property
    def request(self) -> Any:
        """Celery's context of the message; also in threads and coroutines of its agents, where Celery has none."""
        name, of_message = _request.get()
        own = super().request
        return of_message if own.called_directly and name == self.name else own

    @contextmanager
    def shows_request(self) -> Iterator[None]:
        """Let agents see the message's context wherever they run, in the ``with`` block."""
        token = _request.set((self.name, self.request))
        try:
            yield
        finally:
            _request.reset(token)
