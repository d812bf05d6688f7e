"""Media are fetched ahead of their agent tasks, in each way of calling agents, from a sandbox and with the real SDK."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from encord.storage import StorageItem
from encord.workflow.stages.agent import AgentTask
from numpy.typing import NDArray

from celery_agents import Depends, Outcome
from celery_agents.batch import Batch, Execution, admit
from celery_agents.delivery import Unledgered
from celery_agents.dependencies import ahead, dep_asset, dep_single_frame, fetchers
from celery_agents.dependencies.fetchers import Fetchers
from celery_agents.dependencies.plan import Plan, plan
from celery_agents.dependencies.resolve import resolve
from celery_agents.providers import PROVIDERS
from celery_agents.sandbox import Fault, SandboxServer
from celery_agents.supervision import Supervision
from celery_agents.watch import Limits
from celery_agents.work import Work
from tests import servers
from tests.calling.conftest import WAYS, number_of, run, way
from tests.execution.agents import FORWARD
from tests.execution.conftest import Bench, StoppedWhen, open_bench

__all__ = ["way"]

MEDIA = "media.get"
ASSET = Annotated[Path, Depends(dep_asset)]
FRAME = Annotated[NDArray[np.uint8], Depends(dep_single_frame)]


@pytest.fixture
def mixed() -> Iterator[Bench]:
    """Of each kind one or more."""
    with SandboxServer.start(tasks=10, seed=7) as sandbox:
        yield open_bench(sandbox)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetchers]:
    """Threads of the test's own. At its end nothing takes room."""
    own = Fetchers()
    monkeypatch.setattr(fetchers, "_of_process", own)
    yield own
    assert own._taken == {}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary files are, of which none is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def downloads(bench: Bench) -> int:
    return bench.sandbox.calls[MEDIA]


def await_downloads(bench: Bench, number: int) -> None:
    servers.until(lambda: downloads(bench) == number, f"{number} files are fetched")


def outcomes(execution: Execution) -> Counter[Outcome]:
    return Counter(each.outcome for each in execution.outcomes)


# --- What is fetched


def test_all_are_fetched_while_the_first_agent_is_at_work(images: Bench) -> None:
    def agent(task: AgentTask, frame: FRAME) -> str:
        await_downloads(images, 10)
        return FORWARD

    assert outcomes(run(images, agent)) == {Outcome.PROCEEDED: 10}
    assert downloads(images) == 10


def test_the_next_list_is_fetched_while_an_agent_has_one(images: Bench) -> None:
    def agent(frames: Annotated[list[NDArray[np.uint8]], Depends(dep_single_frame)]) -> list[str]:
        await_downloads(images, 10)
        return [FORWARD] * len(frames)

    assert outcomes(run(images, agent, is_batched=True, list_size=2)) == {Outcome.PROCEEDED: 10}


def test_each_agent_task_gets_its_own(images: Bench, way: str) -> None:
    expected: dict[str, NDArray[np.uint8]] = {}
    seen: list[int] = []

    def note(item: StorageItem) -> None:
        expected[str(item.uuid)] = dep_single_frame(item)

    def check(item: StorageItem, frame: NDArray[np.uint8], file: Path) -> str:
        assert np.array_equal(frame, expected[str(item.uuid)])
        assert file.stem == str(item.uuid)
        seen.append(1)
        return FORWARD

    def plain(item: StorageItem, frame: FRAME, file: ASSET) -> str:
        return check(item, frame, file)

    async def coroutine(item: StorageItem, frame: FRAME, file: ASSET) -> str:
        return check(item, frame, file)

    def with_lists(
        items: list[StorageItem],
        frames: Annotated[list[NDArray[np.uint8]], Depends(dep_single_frame)],
        files: Annotated[list[Path], Depends(dep_asset)],
    ) -> list[str]:
        return list(map(check, items, frames, files))

    run(images, note)
    agents: dict[str, Any] = {"on_the_loop": coroutine, "in_lists": with_lists}
    assert outcomes(run(images, agents.get(way, plain), **WAYS[way])) == {Outcome.PROCEEDED: 10}
    assert len(seen) == 10
    assert downloads(images) == 10 + 2 * 10


def test_what_is_shared_is_fetched_once(images: Bench) -> None:
    places = set()

    def size(file: ASSET) -> int:
        places.add(threading.current_thread())
        return file.stat().st_size

    def agent(file: ASSET, number: Annotated[int, Depends(size)]) -> str:
        assert number == file.stat().st_size
        return FORWARD

    assert outcomes(run(images, agent)) == {Outcome.PROCEEDED: 10}
    assert downloads(images) == 10
    assert places == {threading.current_thread()}  # the user's own code stays where it was


def test_encord_agents_own_are_known_by_name(images: Bench) -> None:
    places = []

    def dep_asset(storage_item: StorageItem) -> str:
        places.append(threading.current_thread().name)
        return storage_item.name

    def agent(name: Annotated[str, Depends(dep_asset)]) -> str:
        servers.until(lambda: len(places) == 10, "all were called")
        return FORWARD

    as_encord_agents(dep_asset)
    assert outcomes(run(images, agent)) == {Outcome.PROCEEDED: 10}
    assert Counter(places) == {threading.current_thread().name: 1, "agents-media": 9}


def test_outcomes_are_the_same_as_without(mixed: Bench, way: str) -> None:
    """Items that have no frames among them: which agent task fails, and what with."""

    def plain(frame: FRAME) -> None: ...

    async def coroutine(frame: FRAME) -> None: ...

    def with_lists(frames: Annotated[list[NDArray[np.uint8]], Depends(dep_single_frame)]) -> list[None]:
        return [None] * len(frames)

    agents: dict[str, Any] = {"on_the_loop": coroutine, "in_lists": with_lists}
    told = []
    for memory in (2**28, 0):
        mixed.gateway.media_memory = memory
        execution = run(mixed, agents.get(way, plain), **WAYS[way])
        told.append([(each.outcome, each.error and each.error.detail) for each in execution.outcomes])
    assert told[0] == told[1]
    assert {outcome for outcome, _ in told[0]} == {Outcome.HELD, Outcome.FAILED}


def loaded(bench: Bench) -> list[Work]:
    """The bench's agent tasks, each with its number for a storage item."""
    works = [work for work in admit(Batch(bench.specs), bench.gateway) if isinstance(work, Work)]
    for number, work in enumerate(works):
        work.values[ahead.STORAGE_ITEM] = SimpleNamespace(number=number, file_size=1, width=1, height=1)
    return works


def as_encord_agents(dependency: Any) -> None:
    """Have it taken for encord-agents' own."""
    dependency.__module__, dependency.__qualname__ = "encord_agents.tasks.dependencies", "dep_asset"


def needing(dependency: Callable[[StorageItem], Any]) -> Plan:
    """The plan of an agent with this dependency, as if it was encord-agents'."""

    def agent(file: Annotated[Any, Depends(dependency)]) -> None: ...

    as_encord_agents(dependency)
    return plan(agent, PROVIDERS.keys())


def calling(function: Callable[[int], Any]) -> Callable[[StorageItem], Any]:
    """A dependency that calls *function* with the number."""

    def dep_asset(storage_item: StorageItem) -> Any:
        return function(storage_item.number)  # type: ignore[attr-defined]

    return dep_asset


def test_windows_are_fetched_in_their_order(images: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read at the same time, so that a later one may be loaded first."""
    monkeypatch.setattr(fetchers, "THREADS", 1)
    begun: list[int] = []
    works = loaded(images)
    with ahead.fetching(needing(calling(begun.append)), works, 2**28) as fetch:
        fetch(works[5:])
        fetch(works[:5])
        servers.until(lambda: len(begun) == 9, "all were called")
    assert begun == list(range(1, 10))


def test_nobody_waits_for_a_thread(images: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What none has come to is done by who needs it."""
    monkeypatch.setattr(fetchers, "THREADS", 1)
    is_through = threading.Event()
    works = loaded(images)
    planned = needing(
        calling(lambda number: threading.current_thread() if number > 1 else is_through.wait(30))
    )
    with ahead.fetching(planned, works, 2**28) as fetch:
        fetch(works)
        assert resolve(planned, works[5].values, ExitStack()) == {"file": threading.current_thread()}
        is_through.set()


def test_what_was_done_already_is_not_fetched_again(images: Bench) -> None:
    begun: list[int] = []
    works = loaded(images)
    planned = needing(calling(begun.append))
    with ahead.fetching(planned, works, 1) as fetch:  # one at a time
        fetch(works)
        resolve(planned, works[2].values, ExitStack())
        resolve(planned, works[1].values, ExitStack())
        servers.until(lambda: len(begun) == 3, "the next one was called")
    assert sorted(begun) == [1, 2, 3]


def test_nothing_begins_after_the_end(images: Bench, threads: Fetchers) -> None:
    """A window may be loaded when nobody waits for it any more."""
    works = loaded(images)
    with ahead.fetching(needing(calling(print)), works, 2**28) as fetch:
        pass
    fetch(works)
    assert threads._threads == 0


# --- What is left over


def test_generators_are_resumed(images: Bench) -> None:
    """Not left to the garbage collector, which would end them by an exception."""
    kept: list[Any] = []
    resumed: list[int] = []

    def dep_asset(storage_item: StorageItem) -> Iterator[None]:
        kept.append(sys._getframe())
        yield
        resumed.append(storage_item.number)  # type: ignore[attr-defined]

    works = loaded(images)
    with ahead.fetching(needing(dep_asset), works, 2**28) as fetch:
        fetch(works)
        servers.until(lambda: len(kept) == 9, "all were entered")
    servers.until(lambda: sorted(resumed) == list(range(1, 10)), "all were resumed")


@pytest.mark.parametrize("error", [None, SystemExit, SoftTimeLimitExceeded], ids=str)
def test_what_nobody_asked_for_is_cleaned_up(images: Bench, folder: Path, error: type | None) -> None:
    begun = []

    def agent(task: AgentTask, file: ASSET) -> str:
        begun.append(task)
        await_downloads(images, 10)
        if error is not None:
            raise error
        return FORWARD

    run(images, agent, watch=StoppedWhen(lambda: bool(begun)))
    assert len(begun) == 1
    servers.until(lambda: is_empty(folder), "no file is left")


def test_what_is_under_way_is_cleaned_up_when_it_is_here(images: Bench, folder: Path) -> None:
    images.sandbox.faults.add(Fault(call=MEDIA, nth=tuple(range(2, 11)), latency=1.0))
    begun = []

    def agent(task: AgentTask, file: ASSET) -> str:
        begun.append(task)
        servers.until(lambda: len(list(folder.iterdir())) == 10, "all are under way")
        return FORWARD

    run(images, agent, watch=StoppedWhen(lambda: bool(begun)))
    servers.until(lambda: is_empty(folder), "no file is left")


def test_what_an_earlier_failure_made_useless_is_cleaned_up_at_once(images: Bench, folder: Path) -> None:
    def refuse(task: AgentTask) -> None:
        await_downloads(images, 9)
        if number_of(images, task) < 9:
            raise ValueError("no weights")

    def agent(refused: Annotated[None, Depends(refuse)], file: ASSET) -> str:
        servers.until(lambda: len(list(folder.iterdir())) == 1, "its own file is the only one")
        return FORWARD

    assert outcomes(run(images, agent)) == {Outcome.FAILED: 9, Outcome.PROCEEDED: 1}


def test_an_agent_that_waits_for_its_file_can_be_interrupted(images: Bench) -> None:
    """What it waited for is cleaned up when it is here."""
    is_told = threading.Event()
    resumed = []

    def dep_asset(storage_item: StorageItem) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            assert is_told.wait(30)
        yield
        resumed.append(storage_item)

    def agent(file: Annotated[None, Depends(dep_asset)]) -> str:
        return FORWARD

    as_encord_agents(dep_asset)
    execution = run(
        images,
        agent,
        specs=images.specs[:2],
        report=lambda _, failed: is_told.set() if failed else None,
        watch=Supervision("message", Unledgered(), limits=Limits(soft=0.5)),
    )
    assert [each.outcome for each in execution.outcomes] == [Outcome.PROCEEDED, Outcome.FAILED]
    error = execution.outcomes[1].error
    assert error is not None
    assert error.type == "celery_agents.errors.TimedOutError"
    servers.until(lambda: len(resumed) == 2, "both were resumed")


# --- How much


def test_no_more_than_fits_into_the_memory(images: Bench) -> None:
    """Three of the images fit, as pixels and as files of which Encord does not tell the size."""
    begun: list[int] = []
    images.gateway.media_memory = 3 * (320 * 240 * 3 + ahead.ASSUMED_BYTES)

    def agent(item: StorageItem, frame: FRAME) -> str:
        begun.append(1)
        await_downloads(images, min(len(begun) + 3, 10))
        return FORWARD

    assert outcomes(run(images, agent)) == {Outcome.PROCEEDED: 10}


def test_one_that_is_larger_than_the_memory_goes_alone(images: Bench) -> None:
    begun: list[int] = []
    images.gateway.media_memory = 1

    def agent(frame: FRAME) -> str:
        begun.append(1)
        await_downloads(images, min(len(begun) + 1, 10))
        return FORWARD

    assert outcomes(run(images, agent)) == {Outcome.PROCEEDED: 10}


def test_no_more_than_so_many_of_one_delivery(
    images: Bench, threads: Fetchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetchers, "THREADS", 1)
    monkeypatch.setattr(ahead, "MOST_AHEAD", 4)
    begun: list[int] = []
    works = loaded(images)
    planned = needing(calling(begun.append))
    with ahead.fetching(planned, works, 2**28) as fetch:
        fetch(works)
        for taken in (0, 1, 2):
            all_called = threading.Event()
            threads.submit(all_called.set)  # behind all that was to be called by then
            assert all_called.wait(30)
            assert begun == list(range(1, 5 + taken))
            resolve(planned, works[taken + 1].values, ExitStack())


def test_room_is_that_of_the_process(threads: Fetchers) -> None:
    assert threads.take_room("one", 60, 100)
    assert not threads.take_room("another", 60, 100)
    assert threads.take_room("another", 40, 100)
    threads.give_back("one")
    threads.give_back("another")
    assert threads.take_room("a large one", 200, 100)
    assert not threads.take_room("a small one", 1, 100)
    threads.give_back("a large one")


class Careful(Unledgered):
    """What comes after a crash."""

    def is_careful(self) -> bool:
        return True


@pytest.mark.parametrize("why", ["careful", "no memory", "no media", "one agent task"])
def test_nothing_is_fetched_ahead(images: Bench, threads: Fetchers, why: str) -> None:
    begun: list[int] = []

    def agent(frame: FRAME) -> str:
        begun.append(1)
        assert downloads(images) == len(begun)
        return FORWARD

    def needs_nothing(task: AgentTask) -> str:
        return FORWARD

    images.gateway.media_memory = 0 if why == "no memory" else 2**28
    specs = images.specs[:1] if why == "one agent task" else images.specs
    execution = run(
        images,
        needs_nothing if why == "no media" else agent,
        specs=specs,
        delivery=Careful() if why == "careful" else Unledgered(),
    )
    assert outcomes(execution) == {Outcome.PROCEEDED: len(specs)}
    assert threads._threads == 0
