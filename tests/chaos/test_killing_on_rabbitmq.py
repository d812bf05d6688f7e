"""Workers are killed and RabbitMQ is restarted while Encord is in trouble: nothing is lost, nothing is done twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.servers import Servers
from tests.chaos.siege import LONG, SHORT, WINDOWS, Siege, besiege
from tests.worker.conftest import Site

pytestmark = pytest.mark.app_module("tests.chaos.app")


@pytest.mark.parametrize(
    ("siege", "servers"),
    [
        # A node of its own takes ten seconds to start: here only the connections break.
        pytest.param(SHORT, "shared rabbitmq", marks=[pytest.mark.slow, *SHORT.marks()], id="short"),
        pytest.param(LONG, "rabbitmq", marks=[pytest.mark.long, *LONG.marks()], id="long"),
        pytest.param(WINDOWS, "rabbitmq", marks=[pytest.mark.long, *WINDOWS.marks()], id="windows"),
    ],
    indirect=["servers"],
)
def test_all_is_done_once(siege: Siege, notes: Path, site: Site, servers: Servers) -> None:
    report = besiege(siege, site, servers, notes)
    sys.stdout.write(f"{report}\n")
    assert report.complaints == []
    assert report.extra_runs <= report.allowed
