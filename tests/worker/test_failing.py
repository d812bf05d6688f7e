"""What Celery's own tools see of a message that failed."""

from __future__ import annotations

from typing import Any

import pytest
from celery.result import AsyncResult

from celery_agents import AgentTaskError

from .conftest import DEADLINE, Site

pytestmark = [pytest.mark.app_module("tests.worker.errback_app")]


def test_link_error_gets_what_failed(site: Site) -> None:
    site.start_worker("-c", "1")
    bad = next(spec for spec in site.specs() if '"data_title":"video-' in spec)
    sent = site.module.hold.apply_async([[bad]], link_error=site.module.note_failure.s())
    with pytest.raises(AgentTaskError):
        sent.get(timeout=DEADLINE)
    children: Any = AsyncResult(f"{sent.id}-noted", app=site.app)
    noted = children.get(timeout=DEADLINE)
    assert noted["type"] == "AgentTaskError"
    assert noted["outcomes"] == ["FAILED"]
