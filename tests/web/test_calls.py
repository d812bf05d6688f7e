"""One call for all who ask at the same time, and none for who asks later."""

from __future__ import annotations

import asyncio

import pytest

from celery_agents.web.calls import Shared


class Counted:
    """A call that goes on when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return number


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_thousand_who_ask_at_once_are_served_by_one_call_and_later_ones_by_one_more() -> None:
    async def story() -> None:
        shared, call = Shared[int](), Counted()
        first = [asyncio.ensure_future(shared("a", call)) for _ in range(1000)]
        await turns()
        assert call.begun == 1
        later = [asyncio.ensure_future(shared("a", call)) for _ in range(1000)]
        await turns()
        assert call.begun == 1  # the one after waits for its turn
        call.gate.set()
        assert set(await asyncio.gather(*first)) == {1}
        assert set(await asyncio.gather(*later)) == {2}
        assert await shared("a", call) == 3

    asyncio.run(story())


def test_other_keys_do_not_wait() -> None:
    async def story() -> None:
        shared, slow, fast = Shared[int](), Counted(), Counted()
        waiting = asyncio.ensure_future(shared("a", slow))
        fast.gate.set()
        assert await shared("b", fast) == 1
        slow.gate.set()
        assert await waiting == 1

    asyncio.run(story())


def test_a_failure_is_everybody_s_and_the_next_call_is_a_new_one() -> None:
    async def story() -> None:
        shared, call = Shared[int](), Counted()
        call.failure = ValueError("the broker is away")
        call.gate.set()
        asked = [asyncio.ensure_future(shared("a", call)) for _ in range(3)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(each) for each in told] == ["the broker is away"] * 3
        call.failure = None
        assert await shared("a", call) == 2

    asyncio.run(story())


def test_who_goes_away_takes_it_from_nobody() -> None:
    async def story() -> None:
        shared, call = Shared[int](), Counted()
        gone, stays = (asyncio.ensure_future(shared("a", call)) for _ in range(2))
        await turns()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        call.gate.set()
        assert await stays == 1

    asyncio.run(story())
