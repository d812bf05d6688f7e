"""Put messages into a worker's queue that no Celery would send."""

from __future__ import annotations

import json
import os
import pickle
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from celery_agents import AgentResult
from celery_agents.ledger import Ledger
from celery_agents.snapshots import Snapshot
from tests.worker.conftest import Site, wait_until

JSON, PICKLE = "application/json", "application/x-python-serialize"
EMBEDDED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def body(specs: object, /, *more: object, embedded: object = EMBEDDED, **kwargs: object) -> str:
    """Return a message's body as Celery writes it."""
    return json.dumps([[specs, *more], kwargs, embedded])


class RunsWhenUnpickled:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.mark,)


def pickled(mark: str) -> bytes:
    """Return a message's body that leaves a mark when somebody reads it."""
    return pickle.dumps([[RunsWhenUnpickled(mark)], {}, EMBEDDED])


@dataclass
class Post:
    """A site with a worker, and the way into its queue."""

    site: Site
    specs: list[str]
    stage: UUID = field(init=False)

    def __post_init__(self) -> None:
        self.stage = self.site.module.hold.agent_stage.uuid

    @property
    def ledger(self) -> Ledger:
        ledger = self.site.runner.ledger
        assert ledger is not None
        return ledger

    @property
    def log(self) -> str:
        return self.site.log().read_text(errors="replace")

    def claim(self, message_id: str) -> None:
        """Claim all agent tasks for a message, as a producer does before it sends."""
        uuids = [UUID(json.loads(spec)["uuid"]) for spec in self.specs]
        assert self.ledger.claim(self.stage, {message_id: uuids}, 3600).held_by_others == {}

    def send(
        self,
        payload: str | bytes,
        *,
        content_type: str = JSON,
        headers: dict[str, Any] | None = None,
        without: Sequence[str] = (),
        message_id: str | None = None,
    ) -> AgentResult:
        """Send a message of any content, with Celery's headers and others."""
        message_id = message_id or str(uuid.uuid4())
        usual = {"lang": "py", "task": self.site.module.hold.name, "id": message_id, "retries": 0}
        given = {name: value for name, value in {**usual, **(headers or {})}.items() if name not in without}
        with self.site.app.connection_for_write() as connection:
            connection.Producer().publish(
                payload,
                exchange="",
                routing_key=self.site.app.conf.task_default_queue,
                content_type=content_type,
                content_encoding="utf-8" if isinstance(payload, str) else "binary",
                headers=given,
                correlation_id=message_id,
            )
        return AgentResult(message_id, self.site.app)

    def look(self, message_id: str) -> Snapshot:
        """Return what is stored for a message now."""
        return AgentResult(message_id, self.site.app).snapshot()

    def wait(self, what: str, holds: Callable[[], Any]) -> None:
        """Wait, for no longer than the worker lives."""

        def holds_and_lives() -> bool:
            assert self.site.workers[0].poll() is None, f"the worker has ended:\n{self.log[-2_000:]}"
            return bool(holds())

        wait_until(what, holds_and_lives)
