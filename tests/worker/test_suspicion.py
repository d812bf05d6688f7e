"""When looks at a worker add up to a stuck one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from celery_agents.worker.suspicion import Look, Reaction, Suspicion

IDLE = Look(fetched=7, has_free_slots=True, waiting=frozenset({"a", "b"}), connection=1, is_connected=True)
LOOKS, PATIENCE = 3, 5


def reactions(*looks: Look) -> list[tuple[int, Reaction]]:
    """What is done, and at which look, counted from 1."""
    suspicion = Suspicion(LOOKS, PATIENCE)
    judged = [(number, suspicion.judge(look)) for number, look in enumerate(looks, start=1)]
    return [(number, reaction) for number, reaction in judged if reaction is not None]


def test_a_worker_that_fetches_nothing_from_a_queue_that_is_not_empty_reconnects_and_then_exits() -> None:
    # The first look tells that it could fetch, the three after it that it did not.
    assert reactions(*[IDLE] * 7) == [(4, Reaction.RECONNECT), (7, Reaction.EXIT)]


@pytest.mark.parametrize(
    "harmless",
    [
        [replace(IDLE, fetched=8)],
        [replace(IDLE, has_free_slots=False)],
        [replace(IDLE, waiting=frozenset())],
        [replace(IDLE, waiting=frozenset({"a"})), replace(IDLE, waiting=frozenset({"b"}))],
    ],
    ids=["it fetched one", "it was busy", "empty, or nobody knows", "each queue was empty at some time"],
)
@pytest.mark.parametrize("before", [2, 5], ids=["before reconnecting", "having reconnected"])
def test_one_sign_of_life_ends_the_suspicion(harmless: Sequence[Look], before: int) -> None:
    suspicion = Suspicion(LOOKS, PATIENCE)
    for _ in range(before):
        suspicion.judge(IDLE)
    assert [suspicion.judge(look) for look in harmless] == [None] * len(harmless)
    assert not suspicion.is_stuck
    after = replace(IDLE, fetched=harmless[-1].fetched, waiting=frozenset({"a"}))
    judged = [suspicion.judge(after) for _ in range(LOOKS + 1)]
    assert Reaction.EXIT not in judged
    assert Reaction.RECONNECT in judged


def test_a_queue_that_fills_is_not_held_against_the_worker_from_before() -> None:
    empty = replace(IDLE, waiting=frozenset())
    assert reactions(*[empty] * 9, *[IDLE] * 3) == []


def test_a_new_connection_has_as_much_time_as_the_one_before_and_is_the_last_chance() -> None:
    again = replace(IDLE, connection=2)
    assert reactions(*[IDLE] * 4, *[again] * 4) == [(4, Reaction.RECONNECT), (8, Reaction.EXIT)]


def test_a_connection_that_celery_made_by_itself_is_no_last_chance() -> None:
    again = replace(IDLE, connection=2)
    assert reactions(*[IDLE] * 3, *[again] * 4) == [(7, Reaction.RECONNECT)]


def test_a_worker_that_is_connecting_has_patience_and_then_exits() -> None:
    lost = replace(IDLE, is_connected=False)
    assert reactions(*[lost] * (1 + LOOKS + PATIENCE - 1)) == []
    assert reactions(*[lost] * (1 + LOOKS + PATIENCE)) == [(1 + LOOKS + PATIENCE, Reaction.EXIT)]


def test_it_counts_as_stuck_from_the_first_reaction_on() -> None:
    suspicion = Suspicion(LOOKS, PATIENCE)
    seen = []
    for look in [*[IDLE] * 5, replace(IDLE, fetched=8)]:
        suspicion.judge(look)
        seen.append(suspicion.is_stuck)
    assert seen == [False, False, False, True, True, False]
