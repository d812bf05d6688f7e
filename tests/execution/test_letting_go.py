"""A message may have thousands of agent tasks: what their agents needed, wrote or raised is let go as it is decided."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import pytest
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents import Outcome, TaskAgentReturnStruct
from celery_agents.sandbox import SandboxServer
from tests.servers import until

from .agents import FORWARD, save
from .conftest import Bench, open_bench

T = TypeVar("T")


class Seen(Generic[T]):
    """What agents were given, as long as somebody else has it."""

    def __init__(self) -> None:
        self._seen: list[weakref.ref[Any]] = []
        self._lock = threading.Lock()

    def add(self, thing: T) -> int:
        """Return how many there were before."""
        with self._lock:
            self._seen.append(weakref.ref(thing))
            return len(self._seen) - 1

    def alive(self, first: int) -> int:
        """Return how many of the *first* ones somebody has."""
        gc.collect()
        return sum(ref() is not None for ref in self._seen[:first])


@pytest.fixture
def large() -> Iterator[Bench]:
    with SandboxServer.start(tasks=350, seed=11) as sandbox:
        yield open_bench(sandbox)


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}, {"deferred_saves": True}], ids=str)
def test_what_an_agent_needed_and_wrote_until_it_is_committed(large: Bench, options: dict[str, Any]) -> None:

    rows = Seen[LabelRowV2]()

    def agent(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
        if rows.add(label_row) == 340:
            until(lambda: sum(large.moves().values()) >= 200, "two windows are moved")
            until(lambda: rows.alive(200) == 0, "and their label rows are let go")
        return save(task, label_row)

    execution = large.execute(agent, **options)
    assert [each.outcome for each in execution.outcomes] == [Outcome.PROCEEDED] * 350


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}], ids=str)
def test_what_an_agent_had_in_hand_when_it_raised(large: Bench, options: dict[str, Any]) -> None:
    class Picture:
        """Stands for what is large."""

    pictures, rows = Seen[Picture](), Seen[LabelRowV2]()
    alive: list[tuple[int, int]] = []

    def look_at(picture: Picture) -> None:
        number = pictures.add(picture)
        if number == 300:
            alive.append((pictures.alive(250), rows.alive(250)))
        raise ValueError(f"nothing on picture {number}")

    def agent(label_row: LabelRowV2) -> str:
        rows.add(label_row)
        try:
            look_at(Picture())
        except ValueError as error:
            raise LookupError("cannot say") from error
        return FORWARD

    execution = large.execute(agent, **options)
    assert alive == [(0, 0)]
    assert {each.outcome for each in execution.outcomes} == {Outcome.FAILED}
    error = execution.outcomes[0].error
    assert error is not None
    assert error.traceback is not None
    assert "look_at(Picture())" in error.traceback
    assert "ValueError: nothing on picture" in error.traceback


def test_what_an_agent_staged_before_it_failed_is_not_sent_by_who_has_its_bundle_still(large: Bench) -> None:
    kept: list[Bundle] = []

    def agent(label_row: LabelRowV2, bundle: Bundle) -> str:
        if not kept:
            kept.append(bundle)
            label_row.save(bundle=bundle)
            raise ValueError("no")
        kept[0].execute()
        return FORWARD

    execution = large.execute(agent)
    assert [each.outcome for each in execution.outcomes] == [Outcome.FAILED, *[Outcome.PROCEEDED] * 349]
    assert large.sandbox.calls["labels.save"] == 0
