"""An agent task that takes too long FAILED alone, however it does so; the others of its batch are done."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from celery_agents import AgentResult, Outcome, Status
from celery_agents.messages import TaskOutcome

from .conftest import DEADLINE, Site

pytestmark = [
    pytest.mark.app_module("tests.worker.limited_app"),
    pytest.mark.skipif(sys.platform == "win32", reason="there is nothing to interrupt a thread with"),
]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def outcomes_of_a_batch(site: Site, habit: str, *, pool: str = "prefork") -> list[TaskOutcome]:
    """Run a batch in which the eighth agent task is slow."""
    specs = site.specs()
    slow = json.loads(specs[7])["uuid"]
    site.start_worker("-c", "1", "--pool", pool, SLOW=slow, HABIT=habit)
    outcomes = AgentResult(site.module.pre_label.delay(specs).id, site.app).get(timeout=DEADLINE).outcomes
    assert Counter(site.sandbox.audit.moves().values()) == {
        1: sum(each.outcome is Outcome.PROCEEDED for each in outcomes)
    }
    return outcomes


def assert_failed_alone(outcomes: list[TaskOutcome], site: Site, limit: str, place: str) -> None:
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
    (failed,) = [each for each in outcomes if each.error]
    error = failed.error
    assert error is not None
    assert error.type == "celery_agents.errors.TimedOutError"
    assert error.detail == f"TIMED_OUT: it took longer than its {limit} s."
    assert place in (error.traceback or "")
    assert site.runner.ledger is not None
    (kept,) = site.runner.ledger.failures().records
    assert (kept.task_uuid, bool(kept.spec)) == (failed.task_uuid, True)


@pytest.mark.parametrize(("habit", "pool"), [("sleep", "prefork"), ("compute", "prefork"), ("sleep", "solo")])
def test_after_the_soft_limit_the_agent_is_interrupted(site: Site, habit: str, pool: str, runs: Path) -> None:
    outcomes = outcomes_of_a_batch(site, habit, pool=pool)
    assert_failed_alone(outcomes, site, "soft_time_limit of 0.5", f"in {habit}")
    assert set(Counter(runs.read_text().split()).values()) == {1}


def test_an_agent_may_still_answer_when_it_is_interrupted(site: Site) -> None:
    outcomes = outcomes_of_a_batch(site, "tidy_up")
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 20}


def test_after_the_hard_limit_the_process_is_ended(site: Site, runs: Path) -> None:
    outcomes = outcomes_of_a_batch(site, "ignore")
    assert_failed_alone(outcomes, site, "time_limit of 1.5", "in ignore")
    (failed,) = [each for each in outcomes if each.error]
    assert Counter(runs.read_text().split())[str(failed.task_uuid)] == 1


def test_what_holds_the_interpreter_is_ended_as_well(
    site: Site, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the process can say why, so it counts as a crash."""
    monkeypatch.setitem(site.env, "LAST_RESORT", "0.5")
    outcomes = outcomes_of_a_batch(site, "hold_the_lock")
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
    (error,) = [each.error for each in outcomes if each.error]
    assert error.type == "celery_agents.errors.PoisonError"
    assert "in hold_the_lock" in site.log().read_text()


def test_without_a_ledger_the_message_ends_with_it(site: Site) -> None:
    """Nobody would know, when it comes again, what it hangs in; what waits still is sent by the next sweep."""
    specs = site.specs()
    site.start_worker("-c", "1", SLOW=json.loads(specs[7])["uuid"], HABIT="ignore", WITHOUT_LEDGER="1")
    result = AgentResult(site.module.pre_label.delay(specs).id, site.app)
    assert result.wait(DEADLINE) is Status.TIMED_OUT
    assert Counter(site.sandbox.audit.moves().values()) in ({}, {1: 7})
    log = site.log().read_text()
    assert "There is no ledger" in log
    assert "in ignore" in log
