"""One agent task of a batch kills whoever runs it: it is FAILED as poison, and the others are done."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from celery_agents import AgentResult, Outcome
from tests.chaos.supervisor import Supervisor, survive
from tests.chaos.verdict import runs_in
from tests.worker.conftest import Site

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="pool processes are found in /proc"),
    pytest.mark.app_module("tests.chaos.app"),
    pytest.mark.slow,
    pytest.mark.tasks(100),
    pytest.mark.visibility_timeout(2),
]

#: Deliveries at most: the first death is nobody's, two are the poison's own, and in the last it is not run.
DELIVERIES = 4
PATIENCE = 120.0


@pytest.mark.parametrize(
    ("servers", "dies"),
    [
        ("redis", "worker"),
        ("shared rabbitmq", "process"),
        pytest.param("redis", "process", marks=pytest.mark.long),
        pytest.param("shared rabbitmq", "worker", marks=pytest.mark.long),
    ],
    indirect=["servers"],
)
def test_the_others_are_done(dies: str, notes: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = site.specs()
    poison = json.loads(specs[41])["uuid"]
    monkeypatch.setenv("POISON", poison)
    monkeypatch.setenv("DIES", dies)
    supervisor = Supervisor(site)
    result = AgentResult(site.module.pre_label.delay(specs).id, site.app)
    seconds = survive(supervisor, lambda: result.status.is_final, PATIENCE)
    runs = Counter(str(run.task_uuid) for run in runs_in(notes))
    sys.stdout.write(f"after {seconds:.0f} s and {runs[poison] + 1} deliveries\n")
    outcomes = {str(each.task_uuid): each for each in result.outcomes}
    error = outcomes.pop(poison).error
    assert error is not None
    assert error.type.endswith("PoisonError")
    assert runs[poison] + 1 <= DELIVERIES
    assert Counter(each.outcome for each in outcomes.values()) == {Outcome.PROCEEDED: 99}
    assert Counter(site.sandbox.audit.moves().values()) == {1: 99}
