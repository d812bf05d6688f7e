"""Who may work on what: claims, take-over, fencing, release."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import UUID

import pytest

from celery_agents.ledger import Ledger
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
    assert not claim.is_queued
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


def test_who_decides_instead_is_told(ledger: Ledger) -> None:
    """A newer delivery, whether it runs or has ended, or the message that took an agent task away."""
    running, ended, taken = some(3)
    old = ledger.take_over(STAGE, "a", [running, ended, taken], TTL).token
    new = ledger.take_over(STAGE, "a", [running, ended], TTL).token
    settle(ledger, "a", new, [proceeded(ended)], is_last=False)
    ledger.claim(STAGE, {"b": [taken]}, TTL, force=True)
    settlements = [proceeded(each) for each in (running, ended, taken)]
    left_out = ledger.settle(STAGE, "a", old, settlements, where="worker@host", is_last=True)
    assert left_out == {running: "a", ended: "a", taken: "b"}


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
    site.client.hset(site.ledger.keys.message("a"), "token", ahead)
    assert site.ledger.take_over(STAGE, "a", tasks, TTL).token == ahead + 1
    settle(site.ledger, "a", ahead + 1, [proceeded(tasks[0])])
    assert site.ledger.take_over(STAGE, "b", tasks, TTL).token == ahead + 2


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


def test_nothing_is_kept_of_a_message_that_has_no_claims_left(site: Site) -> None:
    """Neither where it ended, nor where others took all of it, nor where it was released."""
    tasks, keys = some(4), site.ledger.keys.claims(STAGE)
    for number, task in enumerate(tasks):
        site.ledger.claim(STAGE, {f"{number}": [task]}, TTL)
    settle(site.ledger, "0", site.ledger.take_over(STAGE, "0", tasks[:1], TTL).token, [proceeded(tasks[0])])
    site.ledger.claim(STAGE, {"thief": [tasks[1]]}, TTL, force=True)
    for message_id, task in (("thief", tasks[1]), ("2", tasks[2])):
        assert site.ledger.release(STAGE, message_id, [task]) == 1
    assert site.ledger.release(STAGE, "3") == 1
    assert site.client.exists(*keys.values()) == 0


def test_what_was_stolen_from_a_message_is_counted_once(site: Site) -> None:
    tasks = some(3)
    site.ledger.claim(STAGE, {"a": tasks}, TTL)
    site.ledger.claim(STAGE, {"b": tasks[:2]}, TTL, force=True)
    assert site.ledger.in_flight(STAGE) == 3
    assert site.ledger.release(STAGE, "a") == 1
    assert site.ledger.in_flight(STAGE) == 2


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
    new, keys = some(1), site.ledger.keys.claims(STAGE)
    old = {f"old-{number}": some(100) for number in range(12)}
    site.ledger.claim(STAGE, old, TTL)
    site.client.zadd(keys["queued"], dict.fromkeys(old, 1))
    for _ in range(3):  # five messages at a time
        site.ledger.claim(STAGE, {"b": new}, TTL)
    lengths = [site.client.hlen(keys[name]) for name in ("holders", "batches")]
    assert [*lengths, site.client.zcard(keys["queued"])] == [1, 1, 1]
    assert site.client.hgetall(keys["sizes"]) == {b"b": b"1", b" total": b"1"}


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


def test_what_is_in_its_queue_is_claimed_for_longer(ledger: Ledger) -> None:
    """A producer claims for a short time, sends, and confirms; in between a worker may have begun or ended."""
    first, second, third = some(3)
    ledger.claim(STAGE, {"queued": [first], "running": [second], "done": [third]}, 5.0)
    token = ledger.take_over(STAGE, "running", [second], 7.0).token
    done = ledger.take_over(STAGE, "done", [third], 7.0).token
    settle(ledger, "done", done, [proceeded(third)])
    assert ledger.confirm(STAGE, ["queued", "running", "done", "never sent"], 500.0) == 1
    claims = ledger.who_holds(STAGE, [first, second, third])
    assert claims.keys() == {first, second}
    assert 400 < claims[first].seconds_left <= 500
    assert claims[second].seconds_left <= 7
    assert ledger.hold(STAGE, "running", token, [second], TTL).held == {second}


def test_a_message_that_claims_more_has_all_of_it_and_what_lapsed_is_live_again(site: Site) -> None:
    """Also within one call, in which it was found to have lapsed before."""
    first, second, third = some(3)
    site.ledger.claim(STAGE, {"a": [first, second]}, TTL)
    site.lapse(first)
    claimed = site.ledger.claim(STAGE, {"b": [first], "a": [third], "c": [second, third]}, TTL)
    assert claimed.granted == {"b": (first,), "a": (third,), "c": ()}
    assert site.ledger.release(STAGE, "a") == 2


def test_what_waits_in_a_queue_and_is_cancelled_is_anybodys(ledger: Ledger) -> None:
    waiting, running = some(2)
    ledger.claim(STAGE, {"a": [waiting]}, TTL)
    ledger.take_over(STAGE, "b", [running], TTL)
    ledger.cancel(["a", "b"], TTL)
    assert ledger.claim(STAGE, {"c": [waiting, running]}, TTL).granted == {"c": (waiting,)}
