"""What a verified body says."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from celery_agents.web import notification
from celery_agents.web.notification import MalformedError, OtherEventError, OtherVersionError
from tests.web.encord import body_of, envelope

PROJECT, STAGE = UUID(int=1), UUID(int=2)


def read(**changed: Any) -> notification.Notification:
    return notification.read(body_of(envelope(PROJECT, STAGE, **changed)))


def test_it_says_where_agent_tasks_wait() -> None:
    heard = read()
    assert (heard.project_hash, heard.stage_uuid) == (PROJECT, STAGE)
    assert (heard.pending_count, heard.reason) == (7, "batch_size_reached")


def test_what_is_added_without_a_new_version_is_no_matter() -> None:
    payload = {"project_hash": str(PROJECT), "stage_uuid": str(STAGE), "reason": "a new one", "since": "noon"}
    assert read(payload=payload, attempt=2).stage_uuid == STAGE


def test_another_event_is_for_others_whatever_its_version() -> None:
    for version in (1, 2, None, "1"):
        with pytest.raises(OtherEventError, match="'task_submitted_event'"):
            read(event_type="task_submitted_event", version=version, payload=[])


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, None, True])
def test_another_version_may_mean_anything(version: object) -> None:
    with pytest.raises(OtherVersionError, match="only 1"):
        read(version=version)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"event_type": 7}',
        body_of(envelope(PROJECT, STAGE, payload=None)),
        body_of(envelope(PROJECT, STAGE, payload={})),
        body_of(envelope(PROJECT, "no uuid")),
        body_of(envelope("../..", STAGE)),
    ],
)
def test_what_is_no_notification_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError, match="not a notification of Encord's"):
        notification.read(body)
