"""``QueueRunner``: where a project's agents are declared, and from where they are enqueued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from celery import Celery, current_app

from celery_agents.bases import inherited_options, task_base
from celery_agents.declaring import declared, project_uuid, stage_identity
from celery_agents.errors import DeclarationError
from celery_agents.options import stage_options
from celery_agents.permits import Permits
from celery_agents.policies import ExecutionPolicy
from celery_agents.registering import register
from celery_agents.sizes import BatchSize
from celery_agents.task import Declaration, StageTask

if TYPE_CHECKING:
    from encord.project import Project
    from encord.user_client import EncordUserClient
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway
    from celery_agents.groups import AgentGroupResult
    from celery_agents.ledger import Ledger
    from celery_agents.messages import TaskOutcome
    from celery_agents.models import AgentFunction
    from celery_agents.producer.filters import TaskFilters
    from celery_agents.settings import Settings


class QueueRunner:
    """Holds the agents of one Encord project; each is a Celery task.

    Args:
        project_hash: The project's UUID.
        app: The Celery app that runs the agents. By default they belong to every app that is finalised in this
            process, as with ``shared_task``, and are sent by the current one.
        user_client: An authenticated client. By default one is opened from ``ENCORD_SSH_KEY`` or
            ``ENCORD_SSH_KEY_FILE``, and ``ENCORD_DOMAIN``, at first use.

    Constructing it and decorating use no network.

    Raises:
        DeclarationError: *project_hash* is not a UUID.
    """

    def __init__(
        self,
        project_hash: str | UUID,
        app: Celery | None = None,
        user_client: EncordUserClient | None = None,
    ) -> None:
        self.project_hash = project_uuid(project_hash)
        self._app = app
        self._user_client = user_client
        self._task_names: dict[str | UUID, str] = {}

    def __repr__(self) -> str:
        return f"QueueRunner({str(self.project_hash)!r})"

    @property
    def app(self) -> Celery:
        """The Celery app that sends this runner's messages."""
        return self._app or cast("Celery", current_app)

    @cached_property
    def settings(self) -> Settings:
        """The app's settings for agents; read at first use. Raises SetupError where one cannot be used."""
        from celery_agents.settings import Settings  # here, because it imports pydantic

        return Settings.of(self.app)

    @cached_property
    def gateway(self) -> Gateway:
        """The project as the SDK gives it, opened at first use."""
        from celery_agents.gateway.project import Gateway  # here, because it imports the SDK: 1.3 s and 80 MB

        opened = Gateway(
            self.project_hash,
            self._user_client,
            self.settings.call_timeout,
            keep_connections=self.settings.keep_connections,
            media_memory=self.settings.media_memory,
            permit=self._permit(),
        )
        # Threads that come here at once get the same one: cached_property itself takes no lock.
        return cast("Gateway", vars(self).setdefault("gateway", opened))

    def _permit(self) -> Callable[[float], float] | None:
        """Return what is to be asked before each call to Encord, where there is a rate limit."""
        rate = self.settings.rate_limit
        return Permits(self.ledger, rate).await_one if rate and self.ledger else None

    @property
    def client(self) -> EncordUserClient:
        """The authenticated client that the agents get, made at first use. Raises SetupError where there is no key."""
        return self.gateway.client

    @property
    def project(self) -> Project:
        """The project, fetched at first use. Raises SetupError where it is not there for this key."""
        return self.gateway.project

    @property
    def valid_stages(self) -> list[AgentStage]:
        """The project's agent stages, whether they have an agent here or not; fetched at first use."""
        return self.gateway.agent_stages()

    @cached_property
    def ledger(self) -> Ledger | None:
        """The project's ledger, in the Redis of ``agents_ledger_url``, or else of the broker or the result backend.

        With one nothing is enqueued twice, an agent task is in one message at a time, a delivery that was superseded
        commits nothing, and what kills workers is found. Nothing is connected yet. None where there is no Redis, or
        the setting is None.
        """
        settings = self.settings
        if settings.ledger_url is None:
            return None
        from celery_agents.ledger import Ledger, Retention  # here, because it imports redis

        kept = Retention(
            settings.outcomes_kept, settings.max_outcomes, settings.failures_kept, settings.max_failures
        )
        opened = Ledger(settings.ledger_url, self.project_hash, retention=kept)
        return cast("Ledger", vars(self).setdefault("ledger", opened))  # as with the gateway

    @property
    def redelivered_after(self) -> float:
        """Seconds after which the broker gives the messages of a worker that is cut off to another; 0: at once."""
        return float((self.app.conf.broker_transport_options or {}).get("visibility_timeout", 0))

    @property
    def stage_tasks(self) -> tuple[StageTask, ...]:
        """The Celery tasks of the declared agents, in the order of their declaration."""
        return tuple(self.app.tasks[name] for name in self._task_names.values())

    def stage(self, stage: str | UUID, **options: Any) -> Callable[[AgentFunction], StageTask]:
        """Declare the decorated function as the agent of one stage; it becomes a Celery task.

        Args:
            stage: The stage's title or UUID.
            options: See below.

        Options of encord-agents: ``label_row_metadata_include_args``, ``label_row_initialise_labels_args`` and
        ``will_set_priority``. Ours: ``name`` (of the Celery task; by default made of project and stage, so that it
        does not change when a module is renamed or run as a script), ``batch_size`` (100; ``"auto"`` follows the time
        that agents take, see docs/performance.md), ``failure_policy`` (``"all"``, ``"any"``, ``"never"``),
        ``concurrency`` (agent tasks at once: 1, or 16 for ``async def``),
        ``batched`` and ``list_size`` (the agent gets lists), ``deferred_saves`` (what the agent saves by itself is sent
        with the batch; for all of these see docs/agents.md). Celery's retry options ``autoretry_for``,
        ``dont_autoretry_for``, ``max_retries``, ``retry_backoff``, ``retry_backoff_max``, ``retry_jitter``, applied per
        agent task. Celery's task options, such as ``queue``, ``priority``, ``rate_limit``, ``time_limit`` and
        ``expires``; ``bind=True`` gives the agent its Celery task as the first argument; ``base``, a class of Celery
        tasks, and ``before_start``, ``on_success``, ``on_failure``, ``on_retry`` and ``after_return`` are for each
        message.

        Declaring a stage again with a new runner, as a notebook does, replaces its agent.

        Raises:
            DeclarationError: An option, a parameter of the function or the stage cannot be used as given.
        """
        identity = stage_identity(stage)
        base = task_base(self._app, options.get("base"))
        chosen = stage_options({**inherited_options(base), **options})

        def declare(function: AgentFunction) -> StageTask:
            if identity in self._task_names:
                raise DeclarationError(
                    f"Stage {str(stage)!r} has an agent already ({self._task_names[identity]}); one stage, one agent."
                )
            name = chosen.name or f"agents.{str(self.project_hash)[:8]}.{identity}"
            task = register(self._app, name, Declaration(self, declared(identity, function, chosen)), base)
            self._task_names[identity] = name
            return task

        return declare

    def get_agent_stages(self) -> Iterator[AgentStage]:
        """Yield the SDK's agent stages that have an agent here, in the order of their declaration.

        Raises:
            SetupError: The key, the project or a stage is not there.
        """
        for identity in self._task_names:
            yield self.gateway.agent_stage(identity)

    def enqueue(self, *stages: str | UUID, **options: Any) -> AgentGroupResult:
        """Send every agent task that waits at *stages*, in batches; by default at all stages that have an agent.

        Args:
            stages: Titles or UUIDs, as declared.
            options: ``batch_size``, ``limit``, ``filters``, ``max_in_flight``, ``waits``, ``on_sent`` and others, see
                ``producer.sweeping.sweep``.

        Raises:
            SetupError: A stage has no agent here, Encord refuses, or the broker cannot be reached.
        """
        from celery_agents.producer.sweeping import sweep  # here, because who only declares needs none of it

        return sweep(self._tasks_for(stages), **options)

    def query(
        self,
        stage: str | UUID | StageTask,
        spec: object,
        *,
        policy: ExecutionPolicy = ExecutionPolicy.AUTO,
        timeout: float | None = None,
        once: bool = False,
    ) -> TaskOutcome:
        """Have the agent of *stage* run on one agent task now, and return what became of that.

        Args:
            stage: The stage's title or UUID as declared, or the agent's Celery task.
            spec: JSON text, a JSON object, a ``TaskSpec``, or the SDK's ``AgentTask``.
            policy: Who runs it, see ``ExecutionPolicy``; by default a worker where one listens, or else this process.
            timeout: Seconds for all of it; None for as long as it takes. What waits in a queue by then is taken back.
            once: Forget the message's result when it is read.

        Returns:
            The outcome; one that is FAILED is returned, not raised.

        Raises:
            SpecError: *spec* is none.
            ExpiredError: There is no outcome in time; it is a ``TimeoutError``.
            Cancelled: Somebody has cancelled the message meanwhile.
            SetupError: Neither is possible: no broker, no key, no such stage.
        """
        (outcome,) = self.query_many(stage, [spec], policy=policy, timeout=timeout, once=once)
        return outcome

    def query_many(
        self,
        stage: str | UUID | StageTask,
        specs: Iterable[object],
        *,
        policy: ExecutionPolicy = ExecutionPolicy.AUTO,
        timeout: float | None = None,
        once: bool = False,
    ) -> list[TaskOutcome]:
        """Do the same as ``query`` for many agent tasks at once; return their outcomes, in the order of *specs*.

        Workers get them in messages of the stage's ``batch_size``. An ``ExpiredError`` has what was decided in time.
        """
        from celery_agents import queries  # here, because who only declares and sends needs none of it

        task = stage if isinstance(stage, StageTask) else self.task_for(stage)
        return queries.query_many(task, list(specs), policy=policy, timeout=timeout, once=once)

    def beat_schedule(
        self,
        every: float = 60.0,
        *,
        stages: Sequence[str | UUID] = (),
        batch_size: BatchSize | None = None,
        limit: int | None = None,
        filters: TaskFilters | None = None,
        max_in_flight: int | None = None,
        queue: str | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return an entry for Celery's beat, which makes a worker sweep the stages every so many seconds.

            app.conf.beat_schedule = {**runner.beat_schedule(every=60, max_in_flight=1000), "other": {…}}

        What is sent and left out is in that worker's log. Such a sweep needs a ledger and waits for nothing: at the
        high-water mark, or where another producer is sweeping the stage, it leaves the rest to the next beat, and it
        begins only when half of *max_in_flight* or less is in flight.

        Args:
            every: Seconds from one sweep to the next; a sweep that no worker has begun by then is dropped.
            stages: Titles or UUIDs, as declared; by default all that have an agent in the worker that sweeps.
            batch_size: Agent tasks in one message, or "auto"; by default the option of each stage.
            limit: How many agent tasks one sweep may send, over all stages.
            filters: Which agent tasks; by default all.
            max_in_flight: How many agent tasks of each stage may be in flight.
            queue: Where the sweep's own message goes; by default to the queue of the first stage, unless
                ``task_routes`` has the task ``agents.sweep.*``.

        Raises:
            DeclarationError: A number is not positive.
        """
        from celery_agents.producer import beat

        return beat.entry(
            self.project_hash,
            every,
            stages=stages,
            batch_size=batch_size,
            limit=limit,
            filters=filters,
            max_in_flight=max_in_flight,
            queue=queue,
        )

    def _tasks_for(self, stages: tuple[str | UUID, ...]) -> tuple[StageTask, ...]:
        if not stages:
            return self.stage_tasks
        return tuple(self.task_for(stage) for stage in stages)

    def task_for(self, stage: str | UUID) -> StageTask:
        """Return the Celery task of a stage's agent, by the stage's title or UUID as declared."""
        identity = stage_identity(stage)
        if identity not in self._task_names:
            declared = ", ".join(repr(str(each)) for each in self._task_names) or "none"
            raise DeclarationError(
                f"No agent is declared for stage {str(stage)!r}; declared are: {declared}."
            )
        return cast("StageTask", self.app.tasks[self._task_names[identity]])
