"""Stopping in the middle of a batch: the agent task that is on ends, what is answered is committed, the rest goes back."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from celery_agents import AgentResult, Outcome, Status
from celery_agents.sandbox import Fault

from .conftest import DEADLINE, Site, wait_until


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_sigterm_ends_after_the_agent_task_and_another_worker_goes_on(site: Site, pool: str) -> None:
    worker = site.start_worker("-c", "1", "--pool", pool, SECONDS_PER_TASK="0.2")
    result = AgentResult(site.module.pre_label.delay(site.specs()).id, site.app)
    wait_until("a part of it is through", lambda: result.state == "PROGRESS")
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(DEADLINE) == 0
    moved = sum(site.sandbox.audit.moves().values())
    assert 0 < moved < 19
    assert result.status is Status.RETRYING
    assert {each.outcome for each in result.outcomes} <= {Outcome.PROCEEDED, Outcome.FAILED}

    site.start_worker("-c", "1")
    outcomes = result.get(timeout=DEADLINE).outcomes
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
    assert Counter(site.sandbox.audit.moves().values()) == {1: 19}


def test_a_batch_longer_than_its_time_limit_ends_in_pieces(site: Site) -> None:
    """20 agent tasks of 0.2 s in messages that may take 2.5 s: none is interrupted, none runs twice."""
    site.start_worker("-c", "1", SECONDS_PER_TASK="0.2")
    sent = site.module.pre_label.apply_async([site.specs()], soft_time_limit=2.5, time_limit=60)
    result = AgentResult(sent.id, site.app)
    wait_until("it has ended", result.ready)
    assert Counter(each.outcome for each in result.outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
    assert {error.type for error in result.errors.values()} == {"builtins.ValueError"}
    assert Counter(site.sandbox.audit.moves().values()) == {1: 19}
    assert "go round again: the worker is stopping, or the time limit near" in site.log().read_text()


def test_pauses_and_interruptions_are_no_tries(site: Site) -> None:
    """A message that has gone round more often than anything may be tried goes on."""
    specs = site.specs()
    site.sandbox.faults.add(Fault(call="tasks.list", status=503, nth=(1,)))
    site.start_worker("-c", "1")
    result = AgentResult(site.module.pre_label.apply_async([specs], retries=50).id, site.app)
    assert result.wait(DEADLINE) is Status.PARTIAL
    assert Counter(each.outcome for each in result.outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
