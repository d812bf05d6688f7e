"""What a run does with failures, trouble on the way, and what others do meanwhile."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections import Counter
from typing import Annotated, Any
from uuid import UUID

import pytest
from encord.exceptions import EncordException
from encord.workflow.stages.agent import AgentTask

from celery_agents import AgentTaskError, DeclarationError, Depends, Outcome, Progress, Runner, SetupError
from celery_agents.sandbox import Fault, Kind, Project, SandboxServer, StageSpec, StageType
from celery_agents.sequential import summary as summaries

from .conftest import DONE, FORWARD, STAGE

AT_ONCE: dict[str, Any] = {"retry_backoff_max": 0}  #: retries do not wait


def no_images(task: AgentTask) -> str:
    """An agent that fails for every image, and needs no other."""
    if task.data_title.startswith("image-0"):
        raise ValueError(f"no images: {task.data_title}")
    return FORWARD


def test_one_that_fails_costs_itself_and_is_told(
    sandbox: SandboxServer, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE, **AT_ONCE)(no_images)
    images = {task.uuid for task in project.tasks_at(STAGE) if task.data_title.startswith("image-0")}

    summary = runner(task_batch_size=5, num_retries=0)

    assert {str(each.task_uuid) for each in summary.failures} == images
    assert {task.uuid for task in project.tasks_at(STAGE)} == images
    assert summary.counts == {Outcome.PROCEEDED: 12 - len(images), Outcome.FAILED: len(images)}
    assert repr(summary) == f"<RunSummary Pre-label: {12 - len(images)} PROCEEDED, {len(images)} FAILED>"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == len(images)
    assert all("FAILED in step agent" in each and "ValueError: no images" in each for each in errors)


def test_an_agent_task_is_tried_again_as_often_as_asked(sandbox: SandboxServer) -> None:
    runner, tries = Runner(sandbox.project_hash), Counter[UUID]()

    @runner.stage(STAGE, **AT_ONCE)
    def agent(task: AgentTask) -> str:
        tries[task.uuid] += 1
        if tries[task.uuid] < 3 or task.data_title.startswith("video"):
            raise RuntimeError("not yet")
        return FORWARD

    summary = runner(num_retries=2)

    assert set(tries.values()) == {3}
    assert [str(each.data_title)[:5] for each in summary.failures] == ["video"] * summary.failed
    assert summary.failed > 0
    assert all(len(each.earlier_errors) == 2 for each in summary.failures)
    assert summary.counts[Outcome.PROCEEDED] == sum(sandbox.audit.moves().values()) == 12 - summary.failed


@pytest.mark.parametrize(("policy", "is_raised"), [("all", False), ("any", True), ("never", False)])
def test_some_failures_as_the_policy_sees_them(sandbox: SandboxServer, policy: str, is_raised: bool) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE, failure_policy=policy, **AT_ONCE)(no_images)
    if not is_raised:
        assert runner(num_retries=0).failed > 0
        return
    with pytest.raises(
        AgentTaskError, match=r"Stage 'Pre-label': \d of 12 agent tasks failed; .* no images"
    ) as e:
        runner(num_retries=0)
    assert len(e.value.result.outcomes) + sum(sandbox.audit.moves().values()) == 12


def test_of_many_failures_the_first_are_kept_and_all_are_counted(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "FAILURES_KEPT", 5)
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE, failure_policy="never")(lambda: "no pathway")
    summary = runner(task_batch_size=4)
    assert (summary.failed, len(summary.failures)) == (12, 5)


def test_encord_s_passing_trouble_is_waited_for(sandbox: SandboxServer, project: Project) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE, **AT_ONCE)(no_dependencies)
    sandbox.faults.add(Fault(call="tasks.actions", nth=(1,), status=503))
    sandbox.faults.add(Fault(call="tasks.list", nth=(2,), status=503))
    assert runner(task_batch_size=6).counts == {Outcome.PROCEEDED: 12}
    assert Counter(sandbox.audit.moves().values()) == {1: 12}
    assert project.count_at(DONE) == 12


def no_dependencies() -> str:
    return FORWARD


@pytest.mark.sandbox(tasks=12, page_size=4)
def test_a_listing_that_breaks_off_is_begun_again_and_runs_none_twice(sandbox: SandboxServer) -> None:
    runner, met = Runner(sandbox.project_hash), Counter[UUID]()

    @runner.stage(STAGE, **AT_ONCE)
    def agent(task: AgentTask) -> None:
        if not met:  # while the first batch runs: the next page cannot be had
            sandbox.faults.add(Fault(call="tasks.list", nth=(1,), status=503))
        met[task.uuid] += 1

    # Batches of three out of pages of four: one is cut by the trouble.
    summary = runner(task_batch_size=3)

    assert summary.counts == {Outcome.HELD: 12}
    assert (len(met), set(met.values())) == (12, {1})


def test_a_listing_that_stays_broken_is_raised(sandbox: SandboxServer) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE, **AT_ONCE)(no_dependencies)
    sandbox.faults.add(Fault(call="tasks.list", status=503))
    with pytest.raises(EncordException):
        runner(num_retries=2)
    assert sandbox.calls["tasks.list"] == 3


def test_a_pathway_that_leads_back_ends_too(sandbox: SandboxServer) -> None:
    dataset = sandbox.state.add_dataset("More")
    sandbox.state.add_data_units(dataset, [Kind.IMAGE] * 3)
    stages = [
        StageSpec(title="Loop", pathways={"again": "Loop", "out": "Done"}),
        StageSpec(title="Done", type=StageType.DONE),
    ]
    loop = sandbox.state.add_project("Loop", stages=stages, datasets=[dataset])
    runner = Runner(loop.project_hash)
    runner.stage("Loop")(lambda: "again")
    assert runner(task_batch_size=1).counts == {Outcome.PROCEEDED: 3}


def test_what_somebody_else_moves_meanwhile_is_gone(sandbox: SandboxServer, project: Project) -> None:
    runner, first = Runner(sandbox.project_hash), list[UUID]()

    @runner.stage(STAGE)
    def agent(task: AgentTask) -> str:
        if not first:
            project.put(str(task.uuid), "Archive")
        first.append(task.uuid)
        return FORWARD

    summary = runner()

    assert summary.counts == {Outcome.PROCEEDED: 11, Outcome.GONE: 1}
    assert project.stage_of(str(first[0])) == "Archive"


@pytest.mark.sandbox(tasks=30, page_size=10)
def test_what_waits_is_read_page_by_page(sandbox: SandboxServer) -> None:
    runner, pages = Runner(sandbox.project_hash), list[int]()

    @runner.stage(STAGE)
    def agent() -> None:
        pages.append(sandbox.calls["tasks.list"])

    runner(task_batch_size=10)

    # One page and one look at who is still there, for each batch: the second page was not read before the first was run.
    assert [pages[0], pages[10], pages[20]] == [2, 4, 6]


def test_a_soft_time_limit_interrupts_the_one_that_takes_too_long(sandbox: SandboxServer) -> None:
    runner, seen = Runner(sandbox.project_hash), list[UUID]()

    @runner.stage(STAGE, soft_time_limit=0.3, autoretry_for=())
    def agent(task: AgentTask) -> str:
        seen.append(task.uuid)
        while len(seen) == 1:
            pass
        return FORWARD

    summary = runner()

    assert summary.counts == {Outcome.PROCEEDED: 11, Outcome.FAILED: 1}
    assert [each.task_uuid for each in summary.failures] == seen[:1]
    assert summary.failures[0].error is not None
    assert "soft_time_limit of 0.3 s" in summary.failures[0].error.detail


def test_agents_of_every_kind_run(sandbox: SandboxServer, project: Project) -> None:
    runner, loaded, lists = Runner(sandbox.project_hash), list[str](), list[int]()

    def model() -> str:
        loaded.append("model")
        return FORWARD

    @runner.stage(STAGE)
    async def waits(
        progress: Progress,
        pathway: Annotated[str, Depends(model, scope="worker")],
    ) -> str:
        progress.update(1, 2)
        await asyncio.sleep(0)
        return pathway

    @runner.stage(DONE, batched=True)
    def many(tasks: list[AgentTask]) -> list[str | Exception]:
        lists.append(len(tasks))
        return ["small", ValueError("not this one"), *["large"] * (len(tasks) - 2)]

    summary = runner(num_retries=0)

    assert loaded == ["model"]
    assert lists == [12]
    assert summary.counts == {Outcome.PROCEEDED: 23, Outcome.FAILED: 1}
    assert (project.count_at("Review"), project.count_at("Complete"), project.count_at(DONE)) == (10, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_retries": -1}, "num_retries=-1: give a whole number, 0 or more"),
        ({"task_batch_size": 0}, "task_batch_size=0: give a whole number, 1 or more"),
        ({"refresh_every": -5}, "refresh_every=-5: give seconds"),
        ({"project_hash": "mine"}, "project_hash='mine' is not a UUID"),
        ({}, "No project: give project_hash to Runner"),
    ],
)
def test_what_cannot_be_is_said_without_network(arguments: dict[str, object], sentence: str) -> None:
    runner = Runner()
    runner.stage(STAGE)(no_dependencies)
    with pytest.raises(DeclarationError, match=sentence.replace("(", r"\(")):
        runner(**arguments)  # type: ignore[arg-type]


def test_without_an_agent_there_is_nothing_to_run() -> None:
    with pytest.raises(DeclarationError, match="No agent is declared"):
        Runner()()


def test_a_stage_by_its_title_and_by_its_uuid_is_one_stage(sandbox: SandboxServer, project: Project) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE)(no_dependencies)
    runner.stage(project.tasks_at(STAGE)[0].stage_uuid)(no_dependencies)
    with pytest.raises(DeclarationError, match="One stage, one agent"):
        runner()


def test_it_has_no_celery_task_to_give() -> None:
    with pytest.raises(
        DeclarationError, match="bind=True gives the agent its Celery task; a Runner has none"
    ):
        Runner().stage(STAGE, bind=True)(no_dependencies)


def test_options_of_the_queue_runner_are_taken_and_unknown_ones_are_not() -> None:
    runner = Runner()
    runner.stage(STAGE, queue="gpu", batch_size=10, acks_late=True)(no_dependencies)
    with pytest.raises(DeclarationError, match="Did you mean 'will_set_priority'"):
        runner.stage(DONE, will_set_prio=True)(no_dependencies)


def test_no_key(monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer) -> None:
    monkeypatch.delenv("ENCORD_SSH_KEY")
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE)(no_dependencies)
    with pytest.raises(SetupError, match="No Encord key"):
        runner()


def test_declaring_needs_neither_celery_nor_the_sdk() -> None:
    program = (
        "import sys\n"
        "from celery_agents import Runner\n"
        "runner = Runner('00000000-0000-0000-0000-000000000000')\n"
        "runner.stage('Pre-label')(lambda: 'labelled')\n"
        "print(sorted({'celery', 'kombu', 'encord', 'redis', 'numpy'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout == "[]\n"
