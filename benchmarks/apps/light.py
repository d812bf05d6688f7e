"""An app that imports no SDK, and neither does its agent's declaration: what our command line costs by itself."""

from __future__ import annotations

from celery import Celery

from celery_agents import QueueRunner

app = Celery("benchmarks")
runner = QueueRunner("7a4d0000-0000-4000-8000-000000000000", app=app)


@runner.stage("Pre-label")
def nothing() -> None:
    """Leave every agent task where it is."""
