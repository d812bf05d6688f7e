"""``Runner``: where agents are declared that run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from celery_agents.cli.signals import Interruption
from celery_agents.declaring import StageAgent, declared, project_uuid, stage_identity
from celery_agents.errors import AnswerError, DeclarationError
from celery_agents.options import stage_options
from celery_agents.sequential.projects import Projects
from celery_agents.sequential.run import Run
from celery_agents.sequential.showing import nowhere, on_terminal
from celery_agents.sequential.stage_pass import PassOptions
from celery_agents.sequential.summary import RunSummary

if TYPE_CHECKING:
    from encord.project import Project
    from encord.user_client import EncordUserClient
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway

Function = TypeVar("Function", bound=Callable[..., Any])

#: What differs from a worker: whatever an agent raises is worth another try, for it is waited for by a person; an
#: answer that the workflow does not know is not, for it is a mistake in the code.
_DEFAULTS = {"autoretry_for": (Exception,), "dont_autoretry_for": (AnswerError,), "retry_backoff": 1}


class Runner:
    """Runs agents in this process, one agent task after the other.

        runner = Runner(project_hash="…")

        @runner.stage("Pre-label")
        def pre_label(task: AgentTask, label_row: LabelRowV2) -> str:
            …
            return "annotate"

        if __name__ == "__main__":
            runner.run()

    Args:
        project_hash: The project's UUID. A runner without one takes it with each call, and can serve several projects.
        pre_execution_callback: Called with this runner, at each call of it, before the first agent runs: to check, say,
            the ontology of ``runner.project``. What it raises ends the call.
        user_client: An authenticated client. By default one is opened from ``ENCORD_SSH_KEY`` or
            ``ENCORD_SSH_KEY_FILE``, and ``ENCORD_DOMAIN``, at first use.

    Constructing it and decorating use no network: the key, the project and its stages are checked when it is called,
    before the first agent runs.

    Raises:
        DeclarationError: *project_hash* is not a UUID.
    """

    def __init__(
        self,
        project_hash: str | UUID | None = None,
        *,
        pre_execution_callback: Callable[[Runner], object] | None = None,
        user_client: EncordUserClient | None = None,
    ) -> None:
        self.project_hash = None if project_hash is None else project_uuid(project_hash)
        self.pre_execution_callback = pre_execution_callback
        self._projects = Projects(self.project_hash, user_client)
        self._agents: dict[str | UUID, StageAgent] = {}

    def __repr__(self) -> str:
        return f"Runner({str(self.project_hash)!r})" if self.project_hash else "Runner()"

    # ------------------------------------------------------------------------------------------- declaring

    @property
    def agents(self) -> Sequence[StageAgent]:
        """The declared agents, in the order in which their stages were declared first."""
        return tuple(self._agents.values())

    def stage(
        self, stage: str | UUID, *, overwrite: bool = False, **options: Any
    ) -> Callable[[Function], Function]:
        """Declare the decorated function as the agent of one stage; it stays the function that it is.

        Args:
            stage: The stage's title or UUID.
            overwrite: Replace the agent that the stage has, as when a notebook's cell is run again. It keeps its place
                in the order.
            options: Those of ``QueueRunner.stage``, so that the two can be exchanged. What says how an agent runs
                means the same here: ``label_row_metadata_include_args``, ``label_row_initialise_labels_args``,
                ``will_set_priority``, ``deferred_saves``, ``failure_policy``, ``commit_every``, ``commit_interval``,
                ``soft_time_limit`` and Celery's retry options; but that by default every exception is retried, after
                a second and then twice as long, and ``num_retries`` of the call stands for ``max_retries``. What says
                how messages travel, and what Celery calls around them, has no effect.

        Raises:
            DeclarationError: An option, a parameter of the function or the stage cannot be used as given, or the stage
                has an agent already.
        """

        def declare(function: Function) -> Function:
            self.add_stage_agent(stage, function, overwrite=overwrite, **options)
            return function

        return declare

    def add_stage_agent(
        self,
        stage: str | UUID,
        function: Callable[..., Any],
        *,
        overwrite: bool = False,
        **options: Any,
    ) -> StageAgent:
        """Declare *function* as the agent of one stage, as ``stage`` does, and return what was declared."""
        identity = stage_identity(stage)
        if identity in self._agents and not overwrite:
            raise DeclarationError(
                f"Stage {str(stage)!r} has an agent already; one stage, one agent. To replace it, say overwrite=True."
            )
        chosen = stage_options(_DEFAULTS | options)
        if chosen.bind:
            raise DeclarationError(
                "bind=True gives the agent its Celery task; a Runner has none. QueueRunner does."
            )
        self._agents[identity] = declared(identity, function, chosen)
        return self._agents[identity]

    # ------------------------------------------------------------------------------------------ the project

    @property
    def client(self) -> EncordUserClient:
        """The authenticated client that the agents get. Raises SetupError where there is no key."""
        return self._projects.client

    @property
    def project(self) -> Project | None:
        """The project: of the call that is under way, or else the one that the runner was made for, if any.

        Raises:
            SetupError: The key or the project cannot be used.
        """
        gateway = self._projects.current
        return gateway.project if gateway else None

    @property
    def valid_stages(self) -> list[AgentStage] | None:
        """The project's agent stages, whether they have an agent here or not; None where there is no project yet."""
        gateway = self._projects.current
        return gateway.agent_stages() if gateway else None

    def get_agent_stages(self, project_hash: str | UUID | None = None) -> Iterator[AgentStage]:
        """Yield the SDK's agent stages that have an agent here, in the order of their declaration.

        Raises:
            SetupError: The key, the project or a stage is not there.
            DeclarationError: No project is given, here or to the runner.
        """
        gateway = self._projects.open(project_hash)
        for identity in self._agents:
            yield gateway.agent_stage(identity)

    # -------------------------------------------------------------------------------------------- running

    def __call__(
        self,
        refresh_every: float | None = None,
        num_retries: int = 3,
        task_batch_size: int = 300,
        project_hash: str | UUID | None = None,
        max_tasks_per_stage: int | None = None,
    ) -> RunSummary:
        """Run the agents on what waits at their stages, stage by stage, and return what became of it.

        One agent task that fails is logged with its traceback and stays where it is; the others go on. Ctrl-C ends the
        call after the running agent task, with what is done committed; a second one ends it at once.

        Args:
            refresh_every: Seconds from the beginning of one pass to that of the next, without end. By default there is
                one pass, over what waits when it comes to each stage.
            num_retries: How often an agent task is tried again; then it is FAILED until the next pass.
            task_batch_size: How many agent tasks are loaded and committed together, at most.
            project_hash: The project, for a runner that was made without one.
            max_tasks_per_stage: How many agent tasks of each stage a pass takes; None takes all.

        Raises:
            SetupError: The key, the project or a stage cannot be used.
            DeclarationError: An argument cannot be used, no agent is declared, or a stage has two.
            AgentTaskError: After the pass: a stage's failure policy calls it failed; by default where every agent
                task of the stage FAILED. Never with *refresh_every*.
            EncordException: What waits cannot be listed, although that was tried again.
        """
        options = PassOptions(
            num_retries=num_retries, task_batch_size=task_batch_size, max_tasks_per_stage=max_tasks_per_stage
        )
        summary = RunSummary()
        self.run_into(summary, project_hash, options, refresh_every).raise_for_failures()
        return summary

    def run_into(
        self,
        summary: RunSummary,
        project_hash: str | UUID | None,
        options: PassOptions,
        refresh_every: float | None = None,
    ) -> Run:
        """Do what a call does, but count in *summary*, so that it can be told however this ends; raise no failures."""
        if refresh_every is not None and refresh_every < 0:
            raise DeclarationError(f"refresh_every={refresh_every!r}: give seconds, or None for one pass.")
        if not self._agents:
            raise DeclarationError("No agent is declared: decorate a function with @runner.stage(…).")
        gateway = self._projects.open(project_hash)
        with self._begun(gateway, self.agents, options, summary) as run, Interruption() as interruption:
            show = on_terminal(options.max_tasks_per_stage)
            if refresh_every:
                run.repeatedly(refresh_every, show, interruption)
            else:
                run.once(show, interruption)
        return run

    def run_stage(
        self,
        stage: str | UUID,
        *,
        project_hash: str | UUID | None = None,
        num_retries: int = 3,
        task_batch_size: int = 300,
        max_tasks: int | None = None,
    ) -> RunSummary:
        """Run one stage's agent on what waits there, once and without a bar: for a server or a job.

        The other stages that have an agent here need not be in the project. Arguments and errors are those of a call.
        Nothing keeps two calls at the same time apart: both would run their agents on the same agent tasks.
        """
        options = PassOptions(
            num_retries=num_retries, task_batch_size=task_batch_size, max_tasks_per_stage=max_tasks
        )
        summary = RunSummary()
        gateway = self._projects.open(project_hash)
        agents = [self._agent_of(stage, gateway)]
        with self._begun(gateway, agents, options, summary) as run, Interruption() as interruption:
            run.once(nowhere, interruption)
        run.raise_for_failures()
        return summary

    def _agent_of(self, stage: str | UUID, gateway: Gateway) -> StageAgent:
        found = gateway.agent_stage(stage_identity(stage))
        agent = self._agents.get(found.uuid) or self._agents.get(found.title)
        if agent is None:
            names = ", ".join(repr(str(each)) for each in self._agents) or "none"
            raise DeclarationError(f"No agent is declared for stage {str(stage)!r}; declared are: {names}.")
        return agent

    @contextmanager
    def _begun(
        self, gateway: Gateway, agents: Sequence[StageAgent], options: PassOptions, summary: RunSummary
    ) -> Iterator[Run]:
        """Check everything, then call back; meanwhile ``project`` is that of this call."""
        with self._projects.running(gateway):
            run = Run(gateway, agents, options, summary)
            if self.pre_execution_callback is not None:
                self.pre_execution_callback(self)
            yield run

    def run(self) -> None:
        """Run the agents as a program: with the options of its command line, and an exit code.

            python pre_label.py --project-hash … --max-tasks-per-stage 10

        Raises:
            SystemExit: At its end; 0 where everything is done, 1 where something FAILED or cannot be used, 2 for a
                wrong option, 130 after Ctrl-C and 143 after SIGTERM.
        """
        from celery_agents.sequential.command import command

        command(self)()
