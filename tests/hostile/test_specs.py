"""A spec that is none fails alone, with one sentence; the others of its batch are unharmed."""

from __future__ import annotations

import json
import uuid
from typing import Any
from uuid import UUID

import pytest

from celery_agents import Outcome, Status
from celery_agents.errors import SpecError
from celery_agents.messages import TaskOutcome, TaskSpec, raw_text

from .post import Post, body

ONE, OTHER = str(uuid.uuid4()), str(uuid.uuid4())
FIELDS = {"uuid": ONE, "data_hash": OTHER, "data_title": "a title", "label_branch_name": "main"}
LIMIT = 2_000  # bytes, of the worker below

NO_OBJECT = "A task spec is JSON text or a JSON object"


def spec(**fields: object) -> str:
    """Return the JSON of a spec with other fields."""
    return json.dumps({**FIELDS, **fields})


def without(name: str) -> str:
    return json.dumps({field: value for field, value in FIELDS.items() if field != name})


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def circular() -> dict[str, Any]:
    value: dict[str, Any] = dict(FIELDS)
    value["itself"] = value
    return value


# What a message can carry in the place of a spec, and what is said of it. To add a case, add a line.
BAD: dict[str, tuple[Any, str]] = {
    "empty": ("", "Invalid JSON"),
    "no JSON": ("hello", "Invalid JSON"),
    "truncated": (spec()[:50], "Invalid JSON: EOF"),
    "two objects": (spec() + spec(), "Invalid JSON: trailing characters"),
    "a number as text": ("5", "Input should be an object"),
    "null as text": ("null", "Input should be an object"),
    "a list as text": (f"[{spec()}]", "Input should be an object"),
    "a number": (5, f"{NO_OBJECT}, as AgentTask.model_dump_json() gives it, not int"),
    "none": (None, NO_OBJECT),
    "true": (True, NO_OBJECT),
    "a list": ([spec()], NO_OBJECT),
    "an empty object": ({}, "field 'uuid': Field required"),
    "no UUID": (without("uuid"), "field 'uuid'"),
    "no data hash": (without("data_hash"), "field 'data_hash'"),
    "no title": (without("data_title"), "field 'data_title'"),
    "no branch": (without("label_branch_name"), "field 'label_branch_name'"),
    "a UUID that is none": (spec(uuid="../../etc/passwd"), "field 'uuid'"),
    "a UUID that is a URL": (spec(data_hash="http://169.254.169.254/"), "field 'data_hash'"),
    "a UUID that is a number": (spec(uuid=5), "field 'uuid'"),
    "a UUID that is null": (spec(uuid=None), "field 'uuid'"),
    "a UUID with a space": (spec(uuid=f" {ONE}"), "field 'uuid'"),
    "a title that is a list": (spec(data_title=["a"]), "field 'data_title'"),
    "a title that is null": (spec(data_title=None), "field 'data_title'"),
    "a branch that is a number": (spec(label_branch_name=5), "field 'label_branch_name'"),
    "a status that is a number": (spec(status=5), "field 'status'"),
    "a time that is none": (spec(created_at="yesterday"), "field 'created_at'"),
    "a time beyond all": (spec(created_at=10**30), "field 'created_at'"),
    "a time that is not a number": (spec()[:-1] + ',"created_at":NaN}', "field 'created_at'"),
    "a project that is none": (spec(project_hash="x"), "field 'project_hash'"),
    "an integer of 1,500 digits": (f'{{"uuid": {"9" * 1_500}}}', "field 'uuid'"),
    "a lone surrogate": (spec(data_title="\ud800"), "Invalid JSON"),
    "a lone surrogate in an object": ({**FIELDS, "data_title": "\ud800"}, "Invalid JSON"),
    "a lone surrogate in what is ignored": ({**FIELDS, "other": "\ud800"}, "Invalid JSON"),
    "nested in text": ("[" * 1_500, "Invalid JSON: recursion limit exceeded"),
    "nested in an object": ({**FIELDS, "other": nested(250)}, "Invalid JSON: recursion limit exceeded"),
    "too long": (spec(data_title="x" * LIMIT), f"one of more than {LIMIT:,} is not read (the setting agents_max_spec_bytes)"),
    "too long in bytes": (spec()[:-1] + f',"other":"{"é" * (LIMIT // 2)}"}}', "agents_max_spec_bytes"),
    "too long an object": ({**FIELDS, "other": "x" * LIMIT}, "agents_max_spec_bytes"),
}  # fmt: skip

# What only a caller in this process can give.
BAD_HERE: dict[str, tuple[Any, str]] = {
    "bytes that are not UTF-8": (b"\xff\xfe", "Invalid JSON"),
    "bytes of a title that is not UTF-8": (spec().encode().replace(b"a title", b"\xff"), "Invalid JSON"),
    "a text with a lone surrogate": (spec().replace("a title", "\ud800"), "unable to parse raw data"),
    "nested beyond writing": ({**FIELDS, "other": nested(100_000)}, "cannot be written as JSON: RecursionError"),
    "a set": ({"a"}, NO_OBJECT),
    "an object that holds itself": (circular(), "cannot be written as JSON: ValueError"),
    "keys that are none": ({5: 6, b"x": 7}, "field 'uuid'"),
    "a UUID of bytes": ({**FIELDS, "uuid": b"x" * 16}, "field 'uuid'"),
}  # fmt: skip

# What is odd and right.
GOOD: dict[str, Any] = {
    "an object": dict(FIELDS),
    "an object of objects of Python's": {**FIELDS, "uuid": UUID(ONE)},
    "bytes": spec().encode(),
    "urn:": spec(uuid=f"urn:uuid:{ONE}"),
    "braces": spec(uuid=f"{{{ONE}}}"),
    "no hyphens": spec(uuid=ONE.replace("-", "")),
    "capitals": spec(uuid=ONE.upper()),
    "a field twice": spec()[:-1] + f',"uuid":"{OTHER}","uuid":"{ONE}"}}',
    "a field that nobody knows": spec(signed_url="http://169.254.169.254/"),
    "a status that nobody knows": spec(status="NONSENSE"),
    "a title with NUL": spec(data_title="a\x00b"),
    "an empty title": spec(data_title=""),
    "a long title": spec(data_title="x" * (LIMIT - 300)),
}


@pytest.mark.parametrize(("raw", "says"), [*BAD.values(), *BAD_HERE.values()], ids=[*BAD, *BAD_HERE])
def test_a_spec_that_is_none_is_refused_in_a_sentence(raw: Any, says: str) -> None:
    with pytest.raises(SpecError) as refused:
        TaskSpec.decode(raw, LIMIT)
    sentence = str(refused.value)
    assert says in sentence
    assert len(sentence) < 300
    assert "\n" not in sentence
    assert (
        refused.value.__suppress_context__ or refused.value.__context__ is None
    )  # pydantic's quotes what was given
    kept = TaskOutcome(outcome=Outcome.FAILED, spec=raw_text(raw)).model_dump_json()
    assert len(kept) < 25_000


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD.keys())
def test_an_odd_spec_is_read(raw: Any) -> None:
    read = TaskSpec.decode(raw, LIMIT)
    assert str(read.uuid) == ONE
    assert TaskSpec.decode(read.encode()) == read


def test_a_spec_of_exactly_the_limit_is_read() -> None:
    text = spec(data_title="x" * (LIMIT - len(spec(data_title=""))))
    assert TaskSpec.decode(text, LIMIT).data_title.startswith("x")
    with pytest.raises(SpecError, match="2,001 bytes"):
        TaskSpec.decode(text + " ", LIMIT)


def test_a_batch_of_bad_specs_harms_no_good_one(post: Post) -> None:
    """All of the table in one message, to a real worker."""
    specs = [post.specs[0], *(raw for raw, _ in BAD.values()), post.specs[1]]
    result = post.send(body(specs))
    post.wait("it has a result", result.ready)
    assert result.status is Status.PARTIAL
    first, *bad, last = result.outcomes
    assert (first.outcome, last.outcome) == (Outcome.HELD, Outcome.HELD)
    for (name, (_, says)), outcome in zip(BAD.items(), bad, strict=True):
        assert outcome.outcome is Outcome.FAILED, name
        assert outcome.error is not None
        assert outcome.error.step == "spec", name
        assert outcome.error.traceback is None
        assert says in outcome.error.detail, name
        assert outcome.spec is not None, name


def test_a_spec_that_cannot_be_read_gives_its_claim_back(post: Post) -> None:
    """A producer newer than the worker has claimed what the worker cannot read."""
    message_id = str(uuid.uuid4())
    post.claim(message_id)
    result = post.send(body([post.specs[0], "what nobody can read"]), message_id=message_id)
    post.wait("it has a result", result.ready)
    post.wait("its claims are given back", lambda: post.ledger.in_flight(post.stage) == 0)


@pytest.mark.parametrize(("field", "says"), [("project_hash", "for project"), ("stage_uuid", "for stage")])
def test_a_spec_for_elsewhere_fails_alone(post: Post, field: str, says: str) -> None:
    stray = json.dumps({**json.loads(post.specs[0]), field: OTHER})
    result = post.send(body([stray, post.specs[1]]))
    post.wait("it has a result", result.ready)
    failed, held = result.outcomes
    assert held.outcome is Outcome.HELD
    assert failed.error is not None
    assert failed.error.step == "spec"
    assert f"This spec is {says} {OTHER}" in failed.error.detail


@pytest.mark.parametrize("specs", [[], ()])
def test_no_specs_are_no_trouble(post: Post, specs: Any) -> None:
    result = post.send(body(specs))
    post.wait("it has a result", result.ready)
    assert (result.status, result.outcomes) == (Status.SUCCEEDED, [])


def test_a_hundred_times_the_same_is_one(post: Post) -> None:
    result = post.send(body(post.specs[:1] * 100))
    post.wait("it has a result", result.ready)
    assert [outcome.outcome for outcome in result.outcomes] == [Outcome.HELD]
