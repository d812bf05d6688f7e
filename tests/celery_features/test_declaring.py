"""What ``@runner.stage`` takes for Celery's sake, and refuses; settings in a namespace. Nothing is sent."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, Task
from encord.workflow.stages.agent import AgentTask

from celery_agents import AgentTaskError, QueueRunner, StageTask
from celery_agents.errors import AgentRetryError, DeclarationError, SetupError
from celery_agents.settings import Settings


@pytest.fixture
def app() -> Celery:
    return Celery("app", broker="memory://", backend="cache+memory://", set_as_current=False)


@pytest.fixture
def runner(app: Celery) -> QueueRunner:
    return QueueRunner(uuid.uuid4(), app=app)


class Team(Task):  # type: ignore[misc]  # celery ships no types
    """A team's own class of tasks."""

    acks_late = False
    queue = "of the team"
    max_retries = 3

    def on_failure(self, *given: Any) -> None:
        """Tell somebody."""


def test_a_class_of_celery_tasks_as_base(runner: QueueRunner) -> None:
    task = runner.stage("Pre-label", base=Team, max_retries=5)(lambda: None)
    assert isinstance(task, Team)
    assert isinstance(task, StageTask)
    assert (task.acks_late, task.queue_name) == (False, "of the team")
    assert task.stage_agent.options.retry.max_retries == task.max_retries == 5  # the stage's own comes first


def test_retry_options_of_a_base_do_not_run_a_message_that_failed_again(runner: QueueRunner) -> None:
    class Persistent(Task):  # type: ignore[misc]  # celery ships no types
        autoretry_for = (Exception,)

    task = runner.stage("Pre-label", base=Persistent)(lambda: None)
    assert task.stage_agent.options.retry.autoretry_for == (Exception,)
    assert isinstance(task.apply(["no spec"]).result, AgentTaskError)


def test_a_subclass_of_ours_as_base(runner: QueueRunner) -> None:
    class Ours(StageTask):
        """A subclass."""

    task = runner.stage("Pre-label", base=Ours)(lambda: None)
    assert isinstance(task, Ours)
    assert task.acks_late is True


def test_the_apps_own_class_of_tasks_is_among_its_bases() -> None:
    """As a web framework has it whose context every task of an app needs."""
    contexts = []

    class InContext(Task):  # type: ignore[misc]  # celery ships no types
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            contexts.append(self.name)
            return super().__call__(*args, **kwargs)

    app = Celery("app", broker="memory://", task_cls=InContext, set_as_current=False)
    task = QueueRunner(uuid.uuid4(), app=app).stage("Pre-label")(lambda: None)
    assert isinstance(task, InContext)
    task([])
    assert contexts == [task.name]


@pytest.mark.parametrize("base", [dict, "StageTask", Team()])
def test_a_base_that_is_no_class_of_tasks(runner: QueueRunner, base: object) -> None:
    with pytest.raises(
        DeclarationError, match=r"base=.* a subclass of celery.Task or of celery_agents.StageTask"
    ):
        runner.stage("Pre-label", base=base)


def test_a_hook_that_is_no_function(runner: QueueRunner) -> None:
    with pytest.raises(DeclarationError, match="on_failure='tell': give a function"):
        runner.stage("Pre-label", on_failure="tell")


def test_a_bound_agent_needs_a_parameter_for_its_task(runner: QueueRunner) -> None:
    with pytest.raises(DeclarationError, match="must take 1 more positional parameter"):
        runner.stage("Pre-label", bind=True)(lambda: None)


def test_without_bind_the_first_parameter_is_injected_as_the_others(runner: QueueRunner) -> None:
    def agent(self: StageTask, task: AgentTask) -> None:
        """Lack bind=True."""

    with pytest.raises(DeclarationError, match=r"'self: .*StageTask' that cannot be injected"):
        runner.stage("Pre-label")(agent)


def test_an_agent_cannot_replace_its_message(runner: QueueRunner) -> None:
    task = runner.stage("Pre-label", bind=True)(lambda self: None)
    with pytest.raises(NotImplementedError, match="carries other agent tasks too"):
        task.replace(task.s("{}"))


def test_retry_gives_what_is_to_be_raised(runner: QueueRunner) -> None:
    task = runner.stage("Pre-label", bind=True)(lambda self: None)
    asked = task.retry(countdown=5, throw=False)
    assert asked.countdown == 5
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(AgentRetryError) as raised:
        task.retry(eta=in_an_hour)
    assert raised.value.countdown == pytest.approx(3600, abs=600)


def test_asking_for_an_agents_queue_has_no_worker_consume_it(app: Celery, runner: QueueRunner) -> None:
    """With Celery 5.6 a worker without -Q consumes all queues that its app knows."""
    task = runner.stage("Pre-label", queue="of another worker")(lambda: None)
    assert task.queue_name == "of another worker"
    assert list(app.amqp.queues) == [app.conf.task_default_queue]


class Configuration:
    """What a framework's settings module has."""

    CELERY_BROKER_URL = "memory://"
    CELERY_AGENTS_LEDGER_URL = "redis://ledger/3"
    CELERY_AGENTS_MAX_CRASHES = 7


def test_settings_in_a_namespace(app: Celery) -> None:
    app.config_from_object(Configuration, namespace="CELERY")
    settings = Settings.of(app)
    assert (settings.ledger_url, settings.max_crashes) == ("redis://ledger/3", 7)


def test_a_misspelt_setting_in_a_namespace_is_refused_as_it_is_spelt(app: Celery) -> None:
    app.config_from_object(
        type("Misspelt", (Configuration,), {"CELERY_AGENTS_LEDGR_URL": ""}), namespace="CELERY"
    )
    with pytest.raises(
        SetupError, match=r"no setting CELERY_AGENTS_LEDGR_URL\. Did you mean CELERY_AGENTS_LEDGER_URL"
    ):
        Settings.of(app)
