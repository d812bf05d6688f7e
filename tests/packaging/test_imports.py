"""Declaring agents imports what it needs, and no more: every ``celery`` command does it, and whoever only sends."""

from __future__ import annotations

import subprocess
import sys

from tests.packaging.conftest import ROOT

#: Agents of all kinds that need no type of the SDK at run time, and then what has been imported.
DECLARING = """
from __future__ import annotations
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from celery import Celery
from celery_agents import Depends, Progress, QueueRunner
from celery_agents.dependencies import dep_asset
if TYPE_CHECKING:
    import encord

app = Celery("app")
runner = QueueRunner("7a4d0000-0000-4000-8000-000000000000", app=app)
everywhere = QueueRunner("7a4d0000-0000-4000-8000-000000000001")

def load_model() -> object: ...

@runner.stage("Plain")
def plain() -> None: ...

@runner.stage("Options", queue="gpu", batch_size=10, max_retries=3, time_limit=60, failure_policy="any")
def options(progress: Progress, model: Annotated[object, Depends(load_model, scope="worker")]) -> str: ...

@runner.stage("Lists", batched=True)
def lists(rows: list[encord.objects.ontology_labels_impl.LabelRowV2], asset: list[Path] = Depends(dep_asset)) -> list[str]: ...

@everywhere.stage("Coroutine")
async def coroutine(task: encord.workflow.stages.agent.AgentTask) -> str: ...

print(sorted(sys.modules))
"""
#: Of others: what takes long to import, and declaring has no use for.
HEAVY = {"PIL", "av", "encord", "fastapi", "numpy", "pydantic", "redis", "requests", "rich", "urllib3"}
#: Of ours: what only workers, sweeps and readers of results have a use for.
LATER = {"executor", "gateway", "groups", "ledger", "messages", "processing", "results", "settings"}


def modules_after(program: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr
    names: set[str] = set(eval(run.stdout))  # the list that it printed
    return names


def test_declaring_imports_nothing_of_weight() -> None:
    assert modules_after(DECLARING) & HEAVY == set()


def test_declaring_imports_nothing_of_ours_that_is_needed_later() -> None:
    ours = {name for name in modules_after(DECLARING) if name.startswith("celery_agents.")}

    assert ours & {f"celery_agents.{name}" for name in LATER} == set()
    # Of workers and sweeps just what Celery has to know beforehand.
    assert {name for name in ours if name.startswith("celery_agents.worker.")} == set()
    assert {name for name in ours if name.startswith("celery_agents.producer.")} == {
        "celery_agents.producer.tasks"
    }


def test_the_package_itself_imports_nothing_that_python_did_not_bring() -> None:
    brought = modules_after(
        "import sys; before = set(sys.modules); import celery_agents; print(sorted(set(sys.modules) - before))"
    )

    assert {name for name in brought if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "celery_agents",
        "celery_agents._version",
    }
