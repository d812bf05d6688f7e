"""Every scenario of `benchmarks` does its work: a mistake there would show when somebody measures, minutes later."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator

import pytest

from benchmarks.contestants import LATENCIES, Conditions
from benchmarks.scenarios import SCENARIOS, Scenario
from celery_agents.messages import Outcome, TaskCompletionResult
from celery_agents.sandbox import Kind, Sandbox, SandboxServer, seed_project

TASKS = 4


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    state = Sandbox()
    seed_project(state, tasks=TASKS, seed=1, weights={Kind.IMAGE: 1})
    with SandboxServer.start(state) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_our_app_moves_every_agent_task(
    scenario: Scenario, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT", scenario.ours.agent)
    monkeypatch.setenv("BROKER_URL", "memory://")
    monkeypatch.setenv("OPTIONS", json.dumps(dict(scenario.ours.options)))
    monkeypatch.delitem(sys.modules, scenario.ours.module, raising=False)
    app = importlib.import_module(scenario.ours.module)

    specs = [agent_task.model_dump_json() for agent_task in app.task.agent_stage.get_tasks()]
    answer = TaskCompletionResult.model_validate_json(app.task(specs))

    assert [each.outcome for each in answer.outcomes] == [Outcome.PROCEEDED] * TASKS
    assert sandbox.state.projects[sandbox.project_hash].counts()["Route"] == TASKS


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_in_a_run_every_slot_has_the_same_to_do(scenario: Scenario) -> None:
    for latency in LATENCIES:
        conditions = Conditions(latency=latency)
        for contestant in (scenario.ours, scenario.peer):
            tasks = contestant.tasks(conditions)
            size = contestant.message_size(tasks, conditions.slots)
            assert tasks % (size * conditions.slots) == 0
            assert size <= contestant.size
