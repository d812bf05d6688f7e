"""What is wrong with a declaration is said when it is made, with what would be right, and without the network."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import celery
import pytest
from celery import Celery
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents import (
    DeclarationError,
    LabelRowInitialiseLabelsArgs,
    LabelRowMetadataIncludeArgs,
    QueueRunner,
    StageTask,
)

PROJECT = "7ba9d0b4-8dd4-4b7c-9f0c-0a1f5f6f2d11"


def agent(task: AgentTask) -> str:
    """Send it on."""
    return "labelled"


@pytest.fixture
def current() -> Celery:
    """An app that is the current one; what others made current may be closed."""
    return Celery("current")


def declare(app: Celery, stage: Any = "Pre-label", function: Any = agent, **options: Any) -> StageTask:
    return QueueRunner(PROJECT, app=app).stage(stage, **options)(function)


def test_the_result_is_a_celery_task(app: Celery) -> None:
    task = declare(app, queue="gpu", priority=3, rate_limit="10/m", expires=900)
    assert isinstance(task, celery.Task)
    assert isinstance(task, StageTask)
    assert app.tasks[task.name] is task._get_current_object()
    assert (task.queue_name, task.rate_limit) == ("gpu", "10/m")
    assert task.expires == 900
    assert (task.serializer, task.acks_late, task.reject_on_worker_lost) == ("json", True, True)
    real = app.tasks[task.name]
    assert (real.__name__, real.__doc__, real.__module__) == ("agent", "Send it on.", __name__)
    assert task.s(["{}"]).task == task.name


def test_messages_go_where_the_stage_says_unless_told_otherwise(app: Celery) -> None:
    task = declare(app, queue="gpu", priority=3)

    def sent_to(queue: str) -> object:
        with app.connection_for_write() as connection:
            message = connection.SimpleQueue(queue).get(block=False)
            return message.properties.get("priority")

    task.delay("{}")
    assert sent_to("gpu") == 3
    task.s("{}").apply_async()
    assert sent_to("gpu") == 3
    task.apply_async(["{}"], queue="cpu", priority=7)
    assert sent_to("cpu") == 7


def test_the_users_function_stays_callable(app: Celery) -> None:
    assert declare(app).agent is agent


def test_the_name_is_stable_and_can_be_chosen(app: Celery) -> None:
    assert declare(app).name == "agents.7ba9d0b4.Pre-label"
    assert declare(app, "Route", name="mine").name == "mine"


def test_options_of_encord_agents(app: Celery) -> None:
    task = declare(
        app,
        label_row_metadata_include_args=LabelRowMetadataIncludeArgs(include_client_metadata=True),
        label_row_initialise_labels_args=LabelRowInitialiseLabelsArgs(include_signed_url=True),
        will_set_priority=True,
    )
    options = task.stage_agent.options
    assert options.label_row_options == {"include_client_metadata": True}
    assert options.initialise_options == {"include_signed_url": True}
    assert options.will_set_priority


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batchsize": 5}, "no option 'batchsize'. Did you mean 'batch_size'? Its options are: acks_late,"),
        ({"batch_size": 0}, "batch_size=0: give a number of agent tasks, 1 or more"),
        ({"batch_size": True}, "batch_size=True"),
        ({"serializer": "pickle"}, "serializer='pickle': messages of agent tasks are JSON only"),
        ({"failure_policy": "some"}, "failure_policy='some': choose 'all', 'any' or 'never'"),
        ({"will_set_priority": "yes"}, "will_set_priority='yes': give a value of type bool"),
        ({"name": 5}, "name=5"),
        ({"autoretry_for": (ValueError, "IOError")}, "give a tuple of exception classes"),
        ({"max_retries": -1}, "max_retries=-1: give 0 or more, or None"),
        ({"retry_backoff": "fast"}, "retry_backoff='fast': give seconds"),
        ({"label_row_metadata_include_args": {"branch_name": "x"}}, "give a LabelRowMetadataIncludeArgs"),
        ({"label_row_initialise_labels_args": 1}, "give a LabelRowInitialiseLabelsArgs"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_that_cannot_be_used(app: Celery, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        declare(app, **options)
    assert sentence in str(refusal.value)


def test_a_second_agent_for_a_stage(app: Celery) -> None:
    runner = QueueRunner(PROJECT, app=app)
    runner.stage("Pre-label")(agent)
    with pytest.raises(DeclarationError, match="'Pre-label' has an agent already"):
        runner.stage("Pre-label")(agent)


def test_a_stage_by_uuid_is_one_stage_however_it_is_written(app: Celery) -> None:
    runner = QueueRunner(PROJECT, app=app)
    runner.stage(PROJECT.upper())(agent)
    with pytest.raises(DeclarationError, match="has an agent already"):
        runner.stage(UUID(PROJECT))(agent)


def test_a_parameter_that_cannot_be_injected(app: Celery) -> None:
    def wrong(task: AgentTask, threshold: float) -> None:
        """Ask for what nobody provides."""

    with pytest.raises(DeclarationError) as refusal:
        declare(app, function=wrong)
    assert "threshold" in str(refusal.value)
    assert "LabelRowV2" in str(refusal.value)


@pytest.mark.parametrize("stage", ["", None, 5])
def test_a_stage_that_is_none(app: Celery, stage: Any) -> None:
    with pytest.raises(DeclarationError, match="give the agent stage's title or UUID"):
        declare(app, stage)


def test_a_project_hash_that_is_none(app: Celery) -> None:
    with pytest.raises(DeclarationError, match="'my-project' is not a UUID"):
        QueueRunner("my-project", app=app)


def test_without_an_app_it_belongs_to_every_app_that_is_finalised(current: Celery) -> None:
    runner = QueueRunner(PROJECT)
    task = runner.stage("Shared stage")(agent)
    later = Celery("later", set_as_current=False)
    assert task.name in later.tasks
    assert isinstance(later.tasks[task.name], StageTask)
    assert isinstance(task, StageTask)
    assert [each.name for each in runner.stage_tasks] == [task.name]


def test_with_an_app_it_stays_with_that_app(app: Celery) -> None:
    task = declare(app, "Own stage")
    other = Celery("other", set_as_current=False)
    assert task.name not in other.tasks


def test_a_label_row_is_an_ordinary_parameter(app: Celery) -> None:
    def reading(label_row: LabelRowV2) -> None:
        """Take a label row."""

    needs = declare(app, function=reading).stage_agent.agent.plan.needs
    assert needs == {"encord.objects.ontology_labels_impl.LabelRowV2"}


@pytest.mark.parametrize("is_shared", [True, False])
def test_declaring_a_stage_again_replaces_its_agent(app: Celery, current: Celery, is_shared: bool) -> None:
    """A notebook runs a cell twice: the second agent counts, not the one that Celery met first."""

    def first(task: AgentTask) -> None:
        """Be replaced."""

    def second(task: AgentTask) -> None:
        """Stay."""

    runners = [QueueRunner(PROJECT, app=None if is_shared else app) for _ in range(2)]
    tasks = [
        runner.stage("Again", batch_size=size)(function)
        for runner, function, size in zip(runners, (first, second), (1, 2), strict=True)
    ]
    assert tasks[0].name == tasks[1].name
    for task in tasks:
        assert task.agent is second
        assert task.runner is runners[1]
        assert task.stage_agent.options.batch_size == 2
