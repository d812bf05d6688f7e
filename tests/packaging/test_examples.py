"""The example of encord-agents' documentation, changed in nothing but its imports and the project hash, does its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from celery_agents.sandbox import Kind, Sandbox, SandboxServer, StageSpec, StageType
from tests.servers import new_valkey

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "celery_agent.py"
PATIENCE = 60.0


def test_the_celery_example_of_encord_agents_runs_after_changing_the_import(tmp_path: Path) -> None:
    # Given the project that the example is written for
    state = Sandbox(seed=5)
    dataset = state.add_dataset("Pictures")
    state.add_data_units(dataset, [Kind.IMAGE] * 7)
    stages = (
        StageSpec(title="my_stage", pathways={"next_stage": "Done"}),
        StageSpec(title="Done", type=StageType.DONE),
    )
    project = state.add_project("Example", stages=stages, datasets=[dataset])
    text = EXAMPLE.read_text().replace("<your_project_hash>", project.project_hash)
    (tmp_path / "celery_agent.py").write_text(text)

    with SandboxServer.start(state) as sandbox, new_valkey() as server:
        # When a worker runs it, which, as the example is written, also fills the queue
        env = {**os.environ, **sandbox.env(), "CELERY_BROKER_URL": f"redis://127.0.0.1:{server.port}/0"}
        command = [sys.executable, "-m", "celery", "-A", "celery_agent", "worker", "--concurrency=1"]
        log = tmp_path / "worker.log"
        with log.open("wb") as output:
            worker = subprocess.Popen(
                command, cwd=tmp_path, env=env, stdout=output, stderr=output, start_new_session=True
            )
        try:
            # Then everything goes down the pathway, once
            latest = time.monotonic() + PATIENCE
            while project.counts() != {"my_stage": 0, "Done": 7}:
                assert time.monotonic() < latest, log.read_text()
                time.sleep(0.05)
            assert set(sandbox.audit.moves().values()) == {1}
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def test_only_its_imports_are_ours() -> None:
    changed = [line for line in EXAMPLE.read_text().splitlines() if "celery_agents" in line]

    assert changed == ["from celery_agents import QueueRunner"]
