"""Who may work on what: claims, take-over, fencing, release."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import UUID

import pytest

from celery_agents.ledger import Claim, Ledger
from tests.ledger.conftest import OTHER_STAGE, STAGE, TTL, Site, failed, proceeded, settle, some


def test_what_is_claimed_is_not_granted_to_another_message(ledger: Ledger) -> None:
    tasks = some(3)
    assert ledger.claim(STAGE, {"a": tasks[:2]}, TTL).granted == {"a": tuple(tasks[:2])}

    claimed = ledger.claim(STAGE, {"b": tasks}, TTL)

    assert claimed.granted == {"b": (tasks[2],)}
    assert claimed.held_by_others == {tasks[0]: "a", tasks[1]: "a"}
    assert ledger.in_flight(STAGE) == 3
    assert {each: claim.message_id for each, claim in ledger.who_holds(STAGE, tasks).items()} == {
        tasks[0]: "a",
        tasks[1]: "a",
        tasks[2]: "b",
    }


def test_many_batches_are_claimed_in_one_call_and_an_agent_task_goes_to_the_first(ledger: Ledger) -> None:
    first, second = some(2)
    claimed = ledger.claim(STAGE, {"a": [first, first], "b": [first, second]}, TTL)
    assert claimed.granted == {"a": (first,), "b": (second,)}
    assert claimed.held_by_others == {first: "a"}


def test_the_same_agent_task_may_be_in_flight_at_two_stages(ledger: Ledger) -> None:
    tasks = some(1)
    for stage in (STAGE, OTHER_STAGE):
        assert ledger.claim(stage, {"a": tasks}, TTL).granted == {"a": tuple(tasks)}


def test_a_lapsed_claim_may_be_taken_and_is_not_in_flight(site: Site) -> None:
    tasks = some(1)
    site.ledger.claim(STAGE, {"a": tasks}, TTL)
    site.lapse(*tasks)
    assert site.ledger.in_flight(STAGE) == 0
    assert site.ledger.who_holds(STAGE, tasks) == {}
    assert site.ledger.claim(STAGE, {"b": tasks}, TTL).granted == {"b": tuple(tasks)}


def test_force_takes_what_another_message_holds_and_that_one_holds_it_no_longer(ledger: Ledger) -> None:
    tasks = some(2)
    token = ledger.take_over(STAGE, "a", tasks, TTL).token
    assert ledger.claim(STAGE, {"b": tasks[:1]}, TTL, force=True).granted == {"b": (tasks[0],)}
    assert ledger.hold(STAGE, "a", token, tasks, TTL).held == {tasks[1]}


def test_take_over_gets_what_was_claimed_for_it_and_what_nobody_claimed(ledger: Ledger) -> None:
    mine, nobodys, others = some(3)
    ledger.claim(STAGE, {"a": [mine], "b": [others]}, TTL)

    takeover = ledger.take_over(STAGE, "a", [mine, nobodys, others], TTL)

    assert takeover.granted == {mine, nobodys}
    assert takeover.held_by_others == {others: "b"}
    assert (takeover.deliveries, takeover.is_redelivered, takeover.suspect) == (1, False, None)
    assert (takeover.crashes, takeover.settled) == ({}, {})
    claim = ledger.who_holds(STAGE, [mine])[mine]
    assert (claim.token, claim.is_queued) == (takeover.token, False)
    assert 0 < claim.seconds_left <= TTL


def test_sending_a_message_again_while_it_runs_leaves_the_running_delivery_its_token(ledger: Ledger) -> None:
    tasks = some(1)
    token = ledger.take_over(STAGE, "a", tasks, TTL).token
    assert ledger.claim(STAGE, {"a": tasks}, TTL).granted == {"a": tuple(tasks)}
    assert ledger.hold(STAGE, "a", token, tasks, TTL).held == {*tasks}


def test_only_the_newest_delivery_of_a_message_holds_notes_and_settles(ledger: Ledger) -> None:
    tasks = some(2)
    old = ledger.take_over(STAGE, "a", tasks, TTL)
    new = ledger.take_over(STAGE, "a", tasks, TTL)
    assert new.token > old.token
    assert new.deliveries == 2
    assert new.granted == {*tasks}

    assert ledger.hold(STAGE, "a", old.token, tasks, TTL).held == set()
    assert not ledger.note_running(STAGE, "a", old.token, tasks[0]).is_held
    assert settle(ledger, "a", old.token, [proceeded(tasks[0])]) == {tasks[0]}
    assert ledger.outcomes_of(tasks).records == ()

    assert ledger.note_running(STAGE, "a", new.token, tasks[0]).is_held
    assert ledger.hold(STAGE, "a", new.token, tasks, TTL).held == {*tasks}
    assert settle(ledger, "a", new.token, [proceeded(each) for each in tasks]) == set()
    assert ledger.in_flight(STAGE) == 0


def test_a_delivery_that_was_cut_off_does_not_settle_over_the_one_that_has_ended(ledger: Ledger) -> None:
    tasks = some(1)
    old = ledger.take_over(STAGE, "a", tasks, TTL).token
    settle(ledger, "a", ledger.take_over(STAGE, "a", tasks, TTL).token, [proceeded(tasks[0])])

    assert ledger.hold(STAGE, "a", old, tasks, TTL).held == set()
    assert settle(ledger, "a", old, [failed(tasks[0])]) == {*tasks}
    assert [each.outcome.outcome for each in ledger.outcomes_of(tasks).records] == ["PROCEEDED"]
    assert ledger.failures().total == 0


def test_a_lapsed_claim_is_still_held_as_long_as_nobody_took_it(site: Site) -> None:
    kept, taken = some(2)
    token = site.ledger.take_over(STAGE, "a", [kept, taken], TTL).token
    site.lapse(kept, taken)
    site.ledger.claim(STAGE, {"b": [taken]}, TTL)
    assert site.ledger.hold(STAGE, "a", token, [kept, taken], TTL).held == {kept}
    assert site.ledger.in_flight(STAGE) == 2


def test_what_another_message_took_and_ended_is_not_held_any_more(site: Site) -> None:
    tasks = some(1)
    token = site.ledger.take_over(STAGE, "a", tasks, TTL).token
    site.lapse(*tasks)
    settle(site.ledger, "b", site.ledger.take_over(STAGE, "b", tasks, TTL).token, [proceeded(tasks[0])])
    assert site.ledger.hold(STAGE, "a", token, tasks, TTL).held == set()


def test_tokens_grow_although_the_clock_is_set_back(site: Site) -> None:
    tasks = some(1)
    ahead = 9_000_000_000_000_000
    site.ledger.claim(STAGE, {"a": tasks}, TTL)
    site.client.hset(site.ledger.keys.holders(STAGE), tasks[0].hex, f"{ahead} a")
    assert site.ledger.take_over(STAGE, "a", tasks, TTL).token == ahead + 1


def test_release_gives_back_what_this_message_holds_and_nothing_else(ledger: Ledger) -> None:
    tasks = some(3)
    ledger.claim(STAGE, {"a": tasks[:2], "b": tasks[2:]}, TTL)
    assert ledger.release(STAGE, "a", [tasks[0], tasks[2]]) == 1
    assert set(ledger.who_holds(STAGE, tasks)) == {*tasks[1:]}


def test_release_finds_the_claims_of_a_message_among_many(ledger: Ledger) -> None:
    mine, others = some(1_500), some(1_500)
    ledger.claim(STAGE, {"a": mine, "xa": others}, TTL)
    assert ledger.release(STAGE, "a") == 1_500
    assert ledger.in_flight(STAGE) == 1_500


@pytest.mark.parametrize(("queued_only", "left"), [(True, 1), (False, 0)])
def test_release_all_after_a_purge(ledger: Ledger, *, queued_only: bool, left: int) -> None:
    running, *queued = some(2_100)
    ledger.claim(STAGE, {"a": queued}, TTL)
    ledger.take_over(STAGE, "b", [running], TTL)
    ledger.release_all(STAGE, queued_only=queued_only)
    assert ledger.in_flight(STAGE) == left


def test_what_is_released_is_not_committed(ledger: Ledger) -> None:
    tasks = some(1)
    token = ledger.take_over(STAGE, "a", tasks, TTL).token
    ledger.release_all(STAGE)
    assert ledger.hold(STAGE, "a", token, tasks, TTL).held == set()


def test_old_claims_are_cleared_away_by_others(site: Site) -> None:
    old, new = some(1_200), some(1)
    site.ledger.claim(STAGE, {"a": old}, TTL)
    site.client.zadd(site.ledger.keys.deadlines(STAGE), {each.hex: 1 for each in old})
    for _ in range(3):  # 500 at a time
        site.ledger.claim(STAGE, {"b": new}, TTL)
    assert site.client.hlen(site.ledger.keys.holders(STAGE)) == 1
    assert site.client.zcard(site.ledger.keys.deadlines(STAGE)) == 1


def test_ids_with_odd_characters_are_kept_as_their_digest(ledger: Ledger) -> None:
    (task,) = some(1)
    odd = "no id\nof Celery's " * 1_000
    ledger.claim(STAGE, {odd: [task]}, TTL)
    token = ledger.take_over(STAGE, odd, [task], TTL).token
    assert ledger.hold(STAGE, odd, token, [task], TTL).held == {task}
    assert len(ledger.who_holds(STAGE, [task])[task].message_id) < 100
    ledger.cancel([odd], TTL)
    assert ledger.is_cancelled(odd)


CLAIMERS = 8


def test_many_threads_claim_the_same_and_each_is_granted_once(site: Site) -> None:
    tasks = some(2_000)
    plain = site.another(prefix=site.ledger.keys.prefix)

    def claim(number: int) -> tuple[UUID, ...]:
        (granted,) = plain.claim(STAGE, {f"message-{number}": tasks}, TTL).granted.values()
        return granted

    with ThreadPoolExecutor(CLAIMERS) as pool:
        _assert_each_once(list(pool.map(claim, range(CLAIMERS))), tasks)


def test_many_processes_claim_the_same_in_pieces_and_each_is_granted_once(site: Site) -> None:
    tasks = some(2_000)
    context = multiprocessing.get_context("spawn")  # this process has threads
    barrier, queue = context.Barrier(4), context.Queue()
    settings = site.url, site.ledger.keys.project_hash, site.ledger.keys.prefix
    processes = [
        context.Process(target=_claim_pieces, args=(*settings, number, tasks, barrier, queue))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    granted = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    _assert_each_once(granted, tasks)


def _claim_pieces(
    url: str, project: UUID, prefix: str, number: int, tasks: list[UUID], barrier: Barrier, queue: Any
) -> None:
    ledger = Ledger(url, project, prefix=prefix)
    ledger.in_flight(STAGE)  # connected
    barrier.wait(60)
    granted: set[UUID] = set()
    for start in range(0, len(tasks), 50):
        batch = {f"message-{number}-{start}": tasks[start : start + 50]}
        granted.update(*ledger.claim(STAGE, batch, TTL).granted.values())
    queue.put(granted)


def _assert_each_once(granted: list[Any], tasks: list[UUID]) -> None:
    assert sum(len(each) for each in granted) == len(tasks)
    assert set().union(*granted) == set(tasks)


def test_a_claim_says_whether_its_message_waits() -> None:
    assert Claim("a", 0, 1.0).is_queued


def test_what_is_in_its_queue_is_claimed_for_longer(ledger: Ledger) -> None:
    """A producer claims for a short time, sends, and confirms; in between a worker may have begun or ended."""
    first, second, third = some(3)
    ledger.claim(STAGE, {"queued": [first], "running": [second], "done": [third]}, 5.0)
    token = ledger.take_over(STAGE, "running", [second], 7.0).token
    done = ledger.take_over(STAGE, "done", [third], 7.0).token
    settle(ledger, "done", done, [proceeded(third)])
    batches = {"queued": [first], "running": [second], "done": [third], "never sent": some(1)}
    assert ledger.confirm(STAGE, batches, 500.0) == 1
    claims = ledger.who_holds(STAGE, [first, second, third])
    assert claims.keys() == {first, second}
    assert 400 < claims[first].seconds_left <= 500
    assert (claims[second].seconds_left <= 7, claims[second].token) == (True, token)
