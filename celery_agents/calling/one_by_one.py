"""Call an agent for one agent task after the other, on this thread."""

from __future__ import annotations

from collections.abc import Iterable

from celery_agents.calling.one import run
from celery_agents.calling.turns import Calls, Turns
from celery_agents.work import Work


def one_by_one(works: Iterable[Work], calls: Calls, turns: Turns) -> None:
    """Call the agent for each of *works*."""
    for work in works:
        if not turns.may_begin([work]):
            return
        run(work, calls)
        turns.end([work])
