"""What the modules of ``celery_agents.worker`` are told of Celery's signals: by name, so a wrong one is seen only here."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from celery import signals

from celery_agents import worker

MODULES = {path.stem for path in Path(worker.__file__).parent.glob("[!_]*.py")}

#: A worker begins; then which of its modules are not imported.
BEGINS = """
import sys
from celery.signals import worker_init
import tests.cli.light_app as declared
from celery_agents import worker
worker_init.send(sender=declared.app.WorkController(app=declared.app))
print([name for name in worker.TOLD if f"celery_agents.worker.{name}" not in sys.modules])
print([name for name in ("asked", "beat") if f"celery_agents.producer.{name}" not in sys.modules])
"""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_is_told_just_what_it_has_a_function_for(module: str) -> None:
    functions = {name for name in vars(import_module(f"celery_agents.worker.{module}")) if name[:3] == "on_"}

    assert functions == {f"on_{signal}" for signal in worker.TOLD.get(module, ())}


def test_only_what_is_there_is_told() -> None:
    assert worker.TOLD.keys() <= MODULES
    assert all(hasattr(signals, signal) for told in worker.TOLD.values() for signal in told)


def test_a_module_is_told_under_whatever_names_celery_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("celery_agents.worker.releasing.on_task_unknown", lambda **given: told.append(given))
    worker.connect()

    signals.task_unknown.send(sender="consumer", message="m", exc=None, name="a task", id="1")

    assert [(each["sender"], each["name"], each["message"]) for each in told] == [("consumer", "a task", "m")]  # type: ignore[index]


def test_a_worker_has_all_of_it_before_its_pool_forks() -> None:
    run = subprocess.run([sys.executable, "-c", BEGINS], text=True, capture_output=True, check=True)

    assert run.stdout.splitlines()[-2:] == ["[]", "[]"]
