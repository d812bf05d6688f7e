"""Workers are killed and Redis is restarted while Encord is in trouble: nothing is lost, nothing is done twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.servers import Servers
from tests.chaos.siege import LONG, SHORT, WINDOWS, Siege, besiege
from tests.worker.conftest import Site

pytestmark = pytest.mark.app_module("tests.chaos.app")


@pytest.mark.parametrize(
    "siege",
    [
        pytest.param(SHORT, marks=[pytest.mark.slow, *SHORT.marks()], id="short"),
        pytest.param(LONG, marks=[pytest.mark.long, *LONG.marks()], id="long"),
        pytest.param(WINDOWS, marks=[pytest.mark.long, *WINDOWS.marks()], id="windows"),
    ],
)
def test_all_is_done_once(siege: Siege, notes: Path, site: Site, servers: Servers) -> None:
    report = besiege(siege, site, servers, notes)
    sys.stdout.write(f"{report}\n")
    assert report.complaints == []
    assert report.extra_runs <= report.allowed
