"""Telling costs an agent nothing: it is written by another thread, now and then, the last word included."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

import pytest
from encord.workflow.stages.agent import AgentTask

from celery_agents import Cancelled, Depends, ExpiredError, Outcome, Progress, ProgressReport, TaskProgress
from celery_agents.delivery import Unledgered
from celery_agents.messages import PROGRESS_TEXT_LIMIT
from celery_agents.reporter import MOST_TOLD, Reporter
from celery_agents.supervision import Supervision
from celery_agents.watch import Limits, Unwatched
from tests.calling.conftest import run
from tests.execution.conftest import Bench, bench
from tests.servers import until

__all__ = ["bench"]  # the fixture
FORWARD = "labelled"


def reports_of(
    tell: Callable[[Reporter], object],
    number: int = 1,
    is_last: Callable[[ProgressReport], bool] = lambda _: True,
) -> list[ProgressReport]:
    """Return what is written of what is told, when so much of it is, and the last of it."""
    written: list[ProgressReport] = []
    with Reporter(written.append, total=10) as reporter:
        tell(reporter)
        until(lambda: len(written) >= number and is_last(written[-1]), "it is written")
    return written


def test_of_what_is_told_in_quick_succession_the_last_is_written_although_nothing_follows() -> None:
    def tell(reporter: Reporter) -> None:
        for number in range(10_000):
            progress.update(number, 9_999, f"frame {number}")
            reporter(done=1, failed=1)

    uuid = uuid4()
    progress = Progress()

    def start(reporter: Reporter) -> None:
        nonlocal progress
        progress = Progress(uuid, Supervision("", Unledgered(), hear=reporter.hear))
        tell(reporter)

    # On a slow machine some are written before.
    last = reports_of(start, is_last=lambda report: report.text == "frame 9999")[-1]
    assert (last.done, last.failed, last.total, last.text) == (1, 1, 10, "frame 9999")
    assert last.tasks[uuid] == progress.latest
    assert len(last.model_dump_json()) < 500


def test_of_many_agent_tasks_those_are_written_that_were_told_of_last() -> None:
    uuids = [uuid4() for _ in range(MOST_TOLD + 50)]

    def tell(reporter: Reporter) -> None:
        for uuid in [*uuids, uuids[60]]:
            Progress(uuid, Supervision("", Unledgered(), hear=reporter.hear)).update(1, 2)

    told_last = [*uuids[50:60], *uuids[61:], uuids[60]]
    assert reports_of(tell, is_last=lambda report: list(report.tasks) == told_last)


def test_a_quick_message_writes_nothing() -> None:
    written: list[ProgressReport] = []
    with Reporter(written.append, total=2) as reporter:
        reporter(1, 0)
        reporter(2, 0)
    assert written == []


def test_a_backend_that_hangs_or_fails_holds_nobody_up_and_is_waited_for_at_the_end() -> None:
    is_called, may_go_on = threading.Event(), threading.Event()
    ended: list[str] = []

    def write(report: ProgressReport) -> None:
        is_called.set()
        may_go_on.wait(30)
        ended.append("writing")
        raise OSError("away")

    with Reporter(write, total=2) as reporter:
        progress = Progress(uuid4(), Supervision("", Unledgered(), hear=reporter.hear))
        progress.update(1, 2)
        assert is_called.wait(30)
        progress.update(2, 2)  # does not wait
        threading.Timer(0.2, may_go_on.set).start()
    assert ended == ["writing"]  # a report must not come after the result


def test_where_results_are_ignored_nothing_is_written() -> None:
    with Reporter(None, total=2) as reporter:
        Progress(uuid4(), Supervision("", Unledgered(), hear=reporter.hear)).update(1, 2)
        assert reporter._thread is None


def test_what_is_told_is_bounded_and_has_no_secret() -> None:
    assert Progress().latest is None
    progress = Progress()
    progress.update(1, 0, "https://x.test/a?X-Amz-Signature=abc " + "x" * 1_000_000)
    latest = progress.latest
    assert latest is not None
    assert "abc" not in (latest.text or "")
    assert len(latest.text or "") == PROGRESS_TEXT_LIMIT
    assert TaskProgress.model_validate_json(latest.model_dump_json()) == latest


@pytest.mark.parametrize("numbers", [(math.nan, 1), (1, math.inf)])
def test_what_is_no_number_is_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="give a finite number"):
        Progress().update(*numbers)


class Listening(Unwatched):
    """Hears all that is told."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.heard: list[tuple[UUID | None, TaskProgress | None]] = []
        self.refusal = refusal

    def check(self, seconds: float) -> None:
        if self.refusal is not None:
            raise self.refusal

    def hear(self, progress: Progress) -> None:
        self.heard.append((progress.task_uuid, progress.latest))


def test_an_agent_and_its_dependencies_tell_of_the_same_agent_task(bench: Bench) -> None:
    def frames(progress: Progress) -> int:
        progress.update(0, 2, "reading")
        return 2

    def agent(task: AgentTask, progress: Progress, count: Annotated[int, Depends(frames)]) -> str:
        assert progress.task_uuid == task.uuid
        progress.update(count, count, "done")
        return FORWARD

    watch = Listening()
    execution = bench.execute(agent, watch=watch)
    assert [each.outcome for each in execution.outcomes] == [Outcome.PROCEEDED] * 10
    assert [each.progress.text for each in execution.outcomes if each.progress] == ["done"] * 10
    assert [uuid for uuid, _ in watch.heard] == [
        each.task_uuid for each in execution.outcomes for _ in range(2)
    ]


def test_where_nobody_listens_it_works_as_well(bench: Bench) -> None:
    def agent(progress: Progress) -> str:
        progress.update(1, 1)
        return FORWARD

    outcomes = bench.execute(agent, bench.specs[:1]).outcomes
    assert [each.outcome for each in outcomes] == [Outcome.PROCEEDED]


@pytest.mark.parametrize("refusal", [Cancelled("stop"), ExpiredError("late")])
def test_who_is_told_to_stop_did_not_fail_however_it_leaves(bench: Bench, refusal: Exception) -> None:
    def agent(progress: Progress) -> str:
        try:
            progress.update(1, 2)
        except (Cancelled, TimeoutError) as error:
            raise RuntimeError("cleaned up") from error
        return FORWARD

    counted: list[int] = []
    execution = bench.execute(agent, watch=Listening(refusal), report=lambda done, _: counted.append(done))
    assert not any(counted)
    assert execution.outcomes == []
    assert len(execution.again) == 10
    assert execution.trouble == []
    assert bench.moves() == {}


def test_an_agent_that_is_called_with_many_tells_of_each_and_leaves_all(bench: Bench) -> None:
    def agent(progress: list[Progress]) -> list[str]:
        for each in progress:
            each.update(1, 1)
        return [FORWARD] * len(progress)

    watch = Listening()
    outcomes = run(bench, agent, specs=bench.specs[:3], watch=watch, is_batched=True).outcomes
    assert [each.task_uuid for each in outcomes] == [uuid for uuid, _ in watch.heard]
    told_to_stop = Listening(Cancelled("stop"))
    execution = run(bench, agent, specs=bench.specs[3:6], watch=told_to_stop, is_batched=True)
    assert (execution.outcomes, len(execution.again)) == ([], 3)


def test_an_agent_that_raises_such_an_error_by_itself_failed(bench: Bench) -> None:
    def agent(progress: Progress) -> str:
        raise ExpiredError("of another query that it made")

    outcomes = bench.execute(agent, bench.specs[:1], watch=Listening()).outcomes
    assert [each.outcome for each in outcomes] == [Outcome.FAILED]


def test_what_a_supervision_says() -> None:
    fresh = Supervision(
        "", Unledgered(), limits=Limits(soft=1.0), expires=datetime.now(UTC) + timedelta(hours=1)
    )
    fresh.check(0.9)
    with pytest.raises(TimeoutError, match="soft_time_limit of 1 s"):
        fresh.check(1.1)
    assert not fresh.is_stopping()
    late = Supervision("", Unledgered(), expires=datetime.now(UTC) - timedelta(seconds=1))
    assert not late.is_stopping()  # a message that was begun in time goes on, unless an agent asks
    with pytest.raises(ExpiredError):
        late.check(0)
    assert late.is_stopping()
