"""What processes of a worker share about cancelled messages."""

from __future__ import annotations

from uuid import uuid4

from celery_agents import stopping


def test_a_message_that_was_looked_for_in_vain_is_found_once_it_is_cancelled() -> None:
    first, second = str(uuid4()), str(uuid4())
    assert not stopping.is_cancelled(first)
    stopping.cancel(first)
    assert stopping.is_cancelled(first)
    assert not stopping.is_cancelled(second)
    stopping.cancel(second)
    assert stopping.is_cancelled(second)
    assert stopping.is_cancelled(first)


def test_the_latest_cancelled_messages_are_remembered() -> None:
    ids = [str(uuid4()) for _ in range(stopping.CANCELLED_KEPT + 3)]
    for each in ids:
        stopping.cancel(each)
    assert [stopping.is_cancelled(each) for each in ids[:4]] == [False, False, False, True]
    assert all(map(stopping.is_cancelled, ids[3:]))
