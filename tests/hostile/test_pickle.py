"""What is pickled for an agent is never unpickled: not by a worker that accepts JSON only, nor by one that accepts pickle."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import pytest

from celery_agents import Outcome, Status
from tests import servers

from .post import EMBEDDED, PICKLE, Post, body, pickled


@pytest.fixture(scope="module", params=[("redis", "json,pickle"), ("rabbitmq", "json")], ids="-".join)
def setting(request: pytest.FixtureRequest) -> tuple[str, str]:
    broker, accept = request.param
    return broker, accept


@pytest.fixture(scope="module")
def accept(setting: tuple[str, str]) -> str:
    return setting[1]


@pytest.fixture(scope="module")
def broker(setting: tuple[str, str], valkey_url: str) -> str:
    if setting[0] == "rabbitmq":
        servers.require("RabbitMQ", 5672)
        return servers.RABBITMQ
    return f"{valkey_url}/0"


def test_it_is_refused_and_not_run(post: Post, tmp_path: Path) -> None:
    mark, message_id = tmp_path / "was unpickled", str(uuid.uuid4())
    post.claim(message_id)
    result = post.send(pickled(str(mark)), content_type=PICKLE, message_id=message_id)
    post.wait("it has a result", result.ready)
    assert result.status is Status.FAILED
    assert f"Its content type is '{PICKLE}'; only application/json is read." in str(result.snapshot().detail)
    post.wait("its claims are given back", lambda: post.ledger.in_flight(post.stage) == 0)
    assert not mark.exists()


def test_a_lie_about_its_content_does_not_help(post: Post, tmp_path: Path) -> None:
    mark = tmp_path / "was unpickled"
    result = post.send(pickled(str(mark)), content_type="application/json")
    post.wait("it has a result", result.ready)
    assert result.status is Status.FAILED
    assert not mark.exists()


def test_other_tasks_have_what_the_app_accepts(post: Post, accept: str, tmp_path: Path) -> None:
    """The worker that accepts pickle really does: else the first test would show nothing."""
    mark = tmp_path / "ran"
    payload = pickle.dumps([[str(mark)], {}, EMBEDDED])
    post.send(payload, content_type=PICKLE, headers={"task": "touch"})
    good = post.send(body(post.specs))  # the one worker process takes one after the other
    post.wait("the next one has a result", good.ready)
    assert {outcome.outcome for outcome in good.outcomes} == {Outcome.HELD}
    assert mark.exists() == (accept == "json,pickle")
