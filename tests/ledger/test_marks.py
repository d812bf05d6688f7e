"""Pauses, cancelled messages, and the lock on sweeping."""

from __future__ import annotations

from tests.ledger.conftest import OTHER_STAGE, STAGE, TTL, Site, some


def test_a_pause_is_told_by_every_step_of_a_delivery_and_the_longest_counts(site: Site) -> None:
    ledger, tasks = site.ledger, some(1)
    assert ledger.paused_for(STAGE) == 0
    assert 200 < ledger.pause(STAGE, 300) <= 300
    assert 200 < ledger.pause(STAGE, 1) <= 300
    takeover = ledger.take_over(STAGE, "a", tasks, TTL)
    steps = [
        takeover.paused_for,
        ledger.note_running(STAGE, "a", takeover.token, tasks[0]).paused_for,
        ledger.hold(STAGE, "a", takeover.token, tasks, TTL).paused_for,
        ledger.paused_for(STAGE),
    ]
    assert all(200 < each <= 300 for each in steps)
    assert ledger.pause(STAGE, 600) > 300
    assert ledger.paused_for(OTHER_STAGE) == 0


def test_a_cancelled_message_is_told_so_at_every_step(site: Site) -> None:
    ledger, tasks = site.ledger, some(1)
    before = ledger.take_over(STAGE, "a", tasks, TTL)
    assert not before.is_cancelled
    ledger.cancel(["a"], TTL)
    assert ledger.is_cancelled("a")
    assert not ledger.is_cancelled("b")
    assert ledger.note_running(STAGE, "a", before.token, tasks[0]).is_cancelled
    assert ledger.hold(STAGE, "a", before.token, tasks, TTL).is_cancelled
    assert site.another(prefix=ledger.keys.prefix).take_over(STAGE, "a", tasks, TTL).is_cancelled


def test_one_sweeps_a_stage_at_a_time(site: Site) -> None:
    ledger = site.ledger
    assert ledger.lock_sweep(STAGE, "beat", TTL)
    assert ledger.lock_sweep(STAGE, "beat", TTL)  # renewed
    assert not ledger.lock_sweep(STAGE, "webhook", TTL)
    assert ledger.lock_sweep(OTHER_STAGE, "webhook", TTL)
    assert not ledger.unlock_sweep(STAGE, "webhook")
    assert ledger.unlock_sweep(STAGE, "beat")
    assert ledger.lock_sweep(STAGE, "webhook", TTL)
    site.client.delete(ledger.keys.sweep(STAGE))  # as when it expires
    assert not ledger.unlock_sweep(STAGE, "webhook")
