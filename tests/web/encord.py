"""What Encord sends to a webhook, made as Encord makes it, and not by the code that is tested."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any
from uuid import uuid4

SECRET = "5cbf0f7d3a1e4b2c9f8a6d5e4c3b2a1908f7e6d5c4b3a2910f8e7d6c5b4a3921"


def envelope(project_hash: object, stage_uuid: object, **changed: Any) -> dict[str, Any]:
    return {
        "uid": str(uuid4()),
        "version": 1,
        "source": "Encord",
        "event_type": "agent_stage_work_available_event",
        "event_created_timestamp": "2026-09-01T12:00:00+00:00",
        "payload": {
            "project_hash": str(project_hash),
            "stage_uuid": str(stage_uuid),
            "pending_count": 7,
            "reason": "batch_size_reached",
        },
    } | changed


def body_of(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def signed(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers that Encord sends with *body*."""
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Encord-Signature": digest, "X-Encord-Timestamp": timestamp, "Content-Type": "application/json"}
