"""Messages changed at random: each is refused with a SpecError, or executed with one outcome for each agent task.

Seeded, so that a failure comes again: its number is in the test's name.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from encord.workflow.stages.agent import AgentTask
from kombu.message import Message

from celery_agents.errors import SpecError
from celery_agents.messages import Carry, TaskCompletionResult
from celery_agents.sandbox import SandboxServer
from celery_agents.settings import Settings
from celery_agents.worker.incoming import Incoming
from tests.execution.conftest import Bench, open_bench

from .post import JSON, body

#: What is put in the place of a value, or in the middle of a text.
NASTY: list[Any] = [
    None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "\x00", "\ud800", "é" * 1_000, "x" * 100_000,
    "../../etc/passwd", "http://127.0.0.1:9/", "00000000-0000-0000-0000-000000000000", [], {}, [[[]]], {"a": {"b": []}},
    {"__type__": "uuid", "__value__": "x"}, {"__type__": "datetime", "__value__": 5}, {"__type__": "no"},
]  # fmt: skip
PIECES = [
    b'"',
    b"{",
    b"[",
    b"]}",
    b"\\",
    b"\\ud800",
    b"\x00",
    b"\xff",
    b",",
    b"null",
    b"9" * 5_000,
    b"[" * 2_000,
]
SETTINGS = Settings(max_message_bytes=200_000, max_spec_bytes=10_000)
HEADERS = {
    "task": "t",
    "id": "i",
    "retries": 0,
    "timelimit": [None, None],
    "eta": None,
    "expires": None,
    "group": None,
}


def changed(value: Any, chance: random.Random) -> Any:
    """Return *value* with something in it replaced, left out or doubled."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return chance.choice(NASTY)
    copy = value.copy()
    key = chance.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    match chance.random():
        case number if number < 0.7:
            copy[key] = changed(copy[key], chance)
        case number if number < 0.85:
            del copy[key]
        case _ if isinstance(copy, dict):
            copy[str(chance.choice(NASTY))[:50]] = chance.choice(NASTY)
        case _:
            copy.insert(key, chance.choice(NASTY))
    return copy


def damaged(text: bytes, chance: random.Random) -> bytes:
    """Return *text* with a piece cut out, doubled, or put in."""
    start, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    pieces = [
        text[:start] + text[end:],
        text[:end] + text[start:],
        text[:start] + chance.choice(PIECES) + text[start:],
    ]
    return chance.choice([*pieces, text[:start]])


def message(number: int, specs: list[str]) -> Message:
    chance = random.Random(number)
    given: list[Any] = [specs[0], json.loads(specs[1]), specs[2]]
    outcome = {"outcome": "HELD", "task_uuid": json.loads(specs[3])["uuid"], "data_title": "a"}
    error = {"type": "a", "detail": "b", "attempt": 1}
    carry: Any = {"outcomes": [outcome], "errors": {json.loads(specs[0])["uuid"]: [error]}, "attempt": 2}
    headers: Any = dict(HEADERS)
    for _ in range(chance.randrange(1, 3)):
        match chance.randrange(10):
            case 0:
                headers = changed(headers, chance)
            case 1 | 2:
                carry = changed(carry, chance)
            case _:
                place = chance.randrange(len(given))
                given[place] = changed(given[place], chance)
    payload = json.loads(body(given, carry=carry))
    if chance.random() < 0.1:
        payload = changed(payload, chance)
    written = json.dumps(payload).encode()
    if chance.random() < 0.2:
        written = damaged(written, chance)
    headers = headers if isinstance(headers, dict) else {}
    return Message(body=written, content_type=JSON, content_encoding="utf-8", headers=headers)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with SandboxServer.start(tasks=4, seed=3) as sandbox:
        yield open_bench(sandbox)


def hold(task: AgentTask) -> None:
    """Leave it where it is."""


@pytest.mark.parametrize("hundred", range(5))
def test_no_message_does_anything_else(bench: Bench, hundred: int) -> None:
    executed = 0
    for number in range(hundred * 100, hundred * 100 + 100):
        incoming = Incoming(message(number, bench.specs))
        try:
            specs = incoming.specs(SETTINGS)
        except SpecError:
            continue
        carry = Carry.decode(incoming.message.payload[1].get("carry"))
        execution = bench.execute(hold, specs, carry=carry)
        assert execution.again == [], number
        decided = [outcome.task_uuid for outcome in execution.outcomes if outcome.task_uuid]
        assert len(decided) == len(set(decided)), number
        assert len(execution.outcomes) <= len(specs) + len(carry.outcomes), number
        TaskCompletionResult.from_outcomes(execution.outcomes, None).model_dump_json()
        json.dumps(execution.carry.encode())
        executed += 1
    assert 10 < executed < 90  # else it says little
