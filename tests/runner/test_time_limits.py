"""Time limits of a stage are for one agent task; those of the app are for messages, and give way where they must."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from celery_agents import DeclarationError, StageTask
from tests.runner.test_declaring import declare


def with_limits(app: Celery, soft: float | None, hard: float | None, **options: Any) -> StageTask:
    app.conf.update(task_soft_time_limit=soft, task_time_limit=hard)
    return declare(app, **options)


def limits_of(task: StageTask) -> tuple[float | None, float | None]:
    """Return the limits of a message as Celery applies them."""
    conf = task.app.conf
    return task.soft_time_limit or conf.task_soft_time_limit, task.time_limit or conf.task_time_limit


def test_what_the_app_sets_is_for_messages(app: Celery) -> None:
    task = with_limits(app, 840, 900, soft_time_limit=5, time_limit=10)
    assert limits_of(task) == (840, 900)


def test_a_message_has_time_for_the_longest_agent_task(app: Celery) -> None:
    task = with_limits(app, 840, 900, soft_time_limit=1200, time_limit=1800)
    soft, hard = limits_of(task)
    assert soft == pytest.approx(5 * 1800)
    assert hard == pytest.approx(7 * 1800)


def test_without_limits_of_the_app_messages_have_none(app: Celery) -> None:
    task = with_limits(app, None, None, time_limit=10)
    assert limits_of(task) == (None, None)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"time_limit": 0}, "time_limit=0: give the seconds"),
        ({"soft_time_limit": "10"}, "soft_time_limit='10': give the seconds"),
        ({"time_limit": True}, "time_limit=True: give the seconds"),
        ({"soft_time_limit": 10, "time_limit": 10}, "not below time_limit=10"),
    ],
)
def test_limits_that_cannot_be_are_refused(app: Celery, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DeclarationError, match=complaint):
        declare(app, **options)
