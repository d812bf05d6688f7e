"""The same agents on the same project leave the same behind, run by ``Runner`` or by a worker."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from celery_agents import Outcome, Runner
from celery_agents.gateway.project import Gateway
from celery_agents.sandbox import SandboxServer
from tests.worker.conftest import Site, site, urls

__all__ = ["site", "urls"]  # fixtures

UNITS = 40


@pytest.mark.tasks(UNITS)
@pytest.mark.app_module("tests.sequential.both_app")
def test_label_rows_moves_and_outcomes_are_equal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given agents that a worker has run
    site.start_worker("-c", "2")
    by_worker = []
    for stage in ("Pre-label", "Route"):
        sent = site.runner.enqueue(stage, batch_size=7)
        sent.wait(timeout=60)
        by_worker.append(sent.counts)

    # When a runner runs them on a project of the same seed
    with SandboxServer.start(tasks=UNITS, seed=site.sandbox._settings.seed) as twin:
        for name, value in twin.env().items():
            monkeypatch.setenv(name, value)
        runner = Runner(twin.project_hash)
        for task in site.runner.stage_tasks:
            runner.stage(task.stage_agent.stage, retry_backoff_max=0)(task.agent)
        summary = runner(task_batch_size=11)

        # Then nobody can tell which was which
        assert [each.counts for each in summary.stages] == by_worker
        assert set(summary.counts) == {Outcome.PROCEEDED, Outcome.HELD, Outcome.FAILED}
        assert moves(twin) == moves(site.sandbox)
        assert label_rows(twin, monkeypatch) == label_rows(site.sandbox, monkeypatch)


def moves(sandbox: SandboxServer) -> list[tuple[Any, ...]]:
    """Return who went where, in the order of the data units."""
    project = sandbox.state.project(sandbox.project_hash)
    return sorted(
        (
            project.task(str(record.task_uuid)).data_title,
            record.call,
            record.accepted,
            str(dict(record.detail)),
        )
        for record in sandbox.audit.records("tasks.actions")
    )


def label_rows(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the SDK reads of each data unit: stage, priority, objects and classifications."""
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    gateway = Gateway(UUID(sandbox.project_hash))
    rows = gateway.project.list_label_rows_v2()
    gateway.initialise(rows, {})
    return {
        row.data_title: (
            row.workflow_graph_node.title if row.workflow_graph_node else None,
            row.priority,
            [
                (box.ontology_item.title, [(each.frame, each.coordinates) for each in box.get_annotations()])
                for box in row.get_object_instances()
            ],
            [
                (each.ontology_item.title, str(each.get_answer()))
                for each in row.get_classification_instances()
            ],
        )
        for row in rows
    }
