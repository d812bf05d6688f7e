"""List what waits at a stage as task specs, page by page, and group it into what is sent together."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents.claims import Spec
from celery_agents.messages import TaskSpec
from celery_agents.producer.filters import TaskFilters
from celery_agents.producer.lookahead import read_ahead

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

#: Specs that are published together: about half a megabyte.
SPECS_PER_FLUSH = 1_000
#: Agent tasks that are handed over together by the thread that lists: about a page of Encord's.
PAGE = 100
#: How many such are listed ahead of what is being sent: they take as long as sending a flush does, with some to spare.
PAGES_AHEAD = 5
#: Seconds after which what is batched is published although it is less, so that workers do not wait for slow pages.
SECONDS_PER_FLUSH = 0.25
#: How the JSON of a spec ends that was listed: Encord does not say for whom it is.
_FOR_NOBODY = ',"project_hash":null,"stage_uuid":null}'


def encode_spec(spec: TaskSpec, project_hash: UUID | str, stage_uuid: UUID | str) -> str:
    """Return *spec*, as it was listed, in the form that travels: the agent task's own JSON, and for whom it is."""
    # What model_dump_json does, without its arguments; and put together as text. To make a dict, and JSON of that, took
    # four times as long.
    own = type(spec).__pydantic_serializer__.to_json(spec).decode().removesuffix(_FOR_NOBODY)
    return f'{own},"project_hash":"{project_hash}","stage_uuid":"{stage_uuid}"}}'


def pages(
    gateway: Any, stage: AgentStage, filters: TaskFilters, *, is_ahead: bool = False
) -> Iterator[list[Spec]]:
    """Yield what waits at *stage* and matches; a page is asked for when the one before has been taken.

    Args:
        gateway: The project's, which lists.
        stage: Where they wait.
        filters: What matches.
        is_ahead: List further pages meanwhile, up to ``PAGES_AHEAD``, in a thread.
    """
    specs = chain.from_iterable(gateway.list_specs(stage, **request) for request in filters.requests())
    project_hash, stage_uuid = str(gateway.project_hash), str(stage.uuid)  # text once, and not for each spec
    for page in read_ahead(specs, PAGE, PAGES_AHEAD) if is_ahead else ([spec] for spec in specs):
        yield [(spec.uuid, encode_spec(spec, project_hash, stage_uuid)) for spec in page]


def flushes(
    pages: Iterable[list[Spec]], batch_size: int, most: Callable[[], float] = lambda: SPECS_PER_FLUSH
) -> Generator[list[Spec]]:
    """Group specs into what is published together, in whole batches: the first at once, then by number and by time.

    Args:
        pages: The specs; no page is taken ahead of need.
        batch_size: How many go into one message.
        most: Asked when a flush begins: how many it may have, where that is less than usual.
    """
    usual = -(-SPECS_PER_FLUSH // batch_size) * batch_size
    waiting: list[Spec] = []
    goal, due = int(min(usual, most())), time.monotonic()
    for page in pages:
        waiting += page
        while ready := _ready(len(waiting), goal, batch_size, is_due=time.monotonic() >= due):
            flush, waiting = waiting[:ready], waiting[ready:]
            yield flush
            goal, due = int(min(usual, most())), time.monotonic() + SECONDS_PER_FLUSH
    if waiting:
        yield waiting


def _ready(waiting: int, goal: int, batch_size: int, *, is_due: bool) -> int:
    """Return how many of what waits are to be published now."""
    if waiting >= goal:
        return goal
    return waiting // batch_size * batch_size if is_due else 0


def batches(flush: list[Spec], size: int) -> list[list[Spec]]:
    """Cut a flush into what each message carries."""
    return [flush[start : start + size] for start in range(0, len(flush), size)]
