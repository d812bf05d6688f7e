"""The leak fixture can fail, and says which key it is about."""

from __future__ import annotations

from uuid import uuid4

import pytest

from celery_agents.ledger import Ledger
from tests.ledger.conftest import STAGE, TTL, Site, some
from tests.ledger.leaks import assert_all_expire, keys_that_stay, no_leaks

__all__ = ["no_leaks"]  # the fixture


def test_a_key_that_stays_is_found_after_any_operation(site: Site) -> None:
    ledger = site.ledger
    holders = ledger.keys.claims(STAGE)["holders"]
    ledger.claim(STAGE, {"a": some(1)}, TTL)
    site.client.persist(holders)
    with pytest.raises(
        AssertionError, match=f"After InFlight these keys would stay for ever: .*holders:{STAGE.hex}"
    ):
        ledger.in_flight(STAGE)
    assert keys_that_stay(site.client, ledger.keys.prefix) == [holders]
    ledger.claim(STAGE, {"a": some(1)}, TTL)  # sets it again


def test_keys_of_others_are_not_looked_at(site: Site) -> None:
    site.client.set("other:key", 1)
    assert_all_expire(site.client, site.ledger.keys.prefix)
    site.client.delete("other:key")


def test_a_test_with_the_fixture(no_leaks: None, site: Site) -> None:
    Ledger(site.url, uuid4()).claim(STAGE, {"a": some(1)}, TTL)
