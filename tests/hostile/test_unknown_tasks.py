"""A message for an agent that the worker does not have: its sender runs other code than the worker."""

from __future__ import annotations

import json
import uuid

from celery_agents import Outcome, Status

from .post import EMBEDDED, Post, body

UNKNOWN = {"task": "agents.00000000.Renamed"}


def addressed(post: Post) -> list[str]:
    """Return the specs as our producer sends them: each says where it belongs."""
    where = {"project_hash": str(post.site.runner.project_hash), "stage_uuid": str(post.stage)}
    return [json.dumps({**json.loads(spec), **where}) for spec in post.specs]


def test_its_result_says_so_and_its_claims_are_given_back(post: Post) -> None:
    message_id = str(uuid.uuid4())
    post.claim(message_id)
    result = post.send(body(addressed(post)), headers=UNKNOWN, message_id=message_id)
    post.wait("its claims are given back", lambda: post.ledger.in_flight(post.stage) == 0)
    # Celery has stored its own error before, which has no outcomes: each look is a new one.
    post.wait("it has outcomes", lambda: post.look(message_id).counts == {Outcome.FAILED: 5})
    assert result.status is Status.FAILED
    (sentence,) = {error.detail for error in result.errors.values()}
    assert "no agent of the name 'agents.00000000.Renamed'; it has agents." in sentence
    assert "restart the older one, and sweep again" in sentence
    assert sentence in post.log


def test_claims_of_another_message_stay(post: Post) -> None:
    owner, other = str(uuid.uuid4()), str(uuid.uuid4())
    post.claim(owner)
    result = post.send(body(addressed(post)), headers=UNKNOWN, message_id=other)
    post.wait("it has a result", result.ready)
    post.wait("the worker has looked at it", lambda: post.log.count(f"Message {other} with 5 specs") == 1)
    assert post.ledger.in_flight(post.stage) == 5
    assert post.ledger.release(post.stage, owner) == 5


def test_a_spec_of_another_project_names_no_ledger_of_ours(post: Post) -> None:
    """And does no harm: there is nothing to give back."""
    foreign = [
        json.dumps(
            {**json.loads(post.specs[0]), "project_hash": str(uuid.uuid4()), "stage_uuid": str(post.stage)}
        )
    ]
    result = post.send(body(foreign), headers=UNKNOWN)
    post.wait("it has an outcome", lambda: post.look(result.id).counts == {Outcome.FAILED: 1})


def test_messages_of_other_tasks_are_left_to_celery(post: Post) -> None:
    for payload in (json.dumps([[1, 2], {}, EMBEDDED]), body("text"), body([]), "5", body(["x"] * 3)):
        result = post.send(payload, headers={"task": "mails.send"})
        post.wait("it has a result", result.ready)
        assert "NotRegistered" in str(result.snapshot().detail)


def test_the_worker_still_works(post: Post) -> None:
    result = post.send(body(post.specs))
    post.wait("it has a result", result.ready)
    assert {outcome.outcome for outcome in result.outcomes} == {Outcome.HELD}
