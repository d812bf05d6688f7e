"""List what waits at a stage as task specs, page by page, and group it into what is sent together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents.claims import Spec
from celery_agents.producer.filters import TaskFilters

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage, AgentTask

#: Specs that are published together: about half a megabyte, and a page of Encord's.
SPECS_PER_FLUSH = 1_000
#: Seconds after which what is batched is published although it is less, so that workers do not wait for slow pages.
SECONDS_PER_FLUSH = 0.25


def encode_spec(task: AgentTask, project_hash: UUID, stage_uuid: UUID) -> str:
    """Return *task* as the spec that travels in a message: its own JSON, and for whom it is."""
    spec = task.model_dump(mode="json")
    spec["project_hash"] = str(project_hash)
    spec["stage_uuid"] = str(stage_uuid)
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def specs(gateway: Any, stage: AgentStage, filters: TaskFilters) -> Iterator[Spec]:
    """Yield what waits at *stage* and matches; a page is asked for when the one before has been taken."""
    for request in filters.requests():
        for task in gateway.list_tasks(stage, **request):
            yield task.uuid, encode_spec(task, gateway.project_hash, stage.uuid)


def flushes(
    waiting: Iterable[Spec], batch_size: int, most: Callable[[], float] = lambda: SPECS_PER_FLUSH
) -> Iterator[list[Spec]]:
    """Group specs into what is published together, in whole batches: the first at once, then by number and by time.

    Args:
        waiting: The specs; none is taken ahead of need.
        batch_size: How many go into one message.
        most: Asked when a flush begins: how many it may have, where that is less than usual.
    """
    usual = -(-SPECS_PER_FLUSH // batch_size) * batch_size
    flush: list[Spec] = []
    goal, due = min(usual, most()), time.monotonic()
    for spec in waiting:
        flush.append(spec)
        if len(flush) >= goal or (len(flush) % batch_size == 0 and time.monotonic() >= due):
            yield flush
            flush, goal, due = [], min(usual, most()), time.monotonic() + SECONDS_PER_FLUSH
    if flush:
        yield flush


def batches(flush: list[Spec], size: int) -> list[list[Spec]]:
    """Cut a flush into what each message carries."""
    return [flush[start : start + size] for start in range(0, len(flush), size)]
