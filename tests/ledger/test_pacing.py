"""How long agent tasks take, as it is known to producers."""

from __future__ import annotations

import pytest

from tests.ledger.conftest import OTHER_STAGE, STAGE, Site


def test_the_latest_messages_count_most(site: Site) -> None:
    ledger = site.ledger
    assert ledger.pace(STAGE) is None
    ledger.note_pace(STAGE, 100, 200.0)
    assert ledger.pace(STAGE) == 2.0
    ledger.note_pace(STAGE, 100, 100.0)
    assert ledger.pace(STAGE) == pytest.approx((0.8 * 200 + 100) / (0.8 * 100 + 100))
    for _ in range(30):
        ledger.note_pace(STAGE, 100, 1.0)
    assert ledger.pace(STAGE) == pytest.approx(0.01, abs=0.005)
    assert ledger.pace(OTHER_STAGE) is None


def test_a_message_counts_for_as_much_as_it_carries(site: Site) -> None:
    site.ledger.note_pace(STAGE, 1000, 4.0)
    site.ledger.note_pace(STAGE, 1, 0.4)
    assert site.ledger.pace(STAGE) == pytest.approx(0.0045, abs=0.0001)
