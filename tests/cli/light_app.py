"""An app whose agent needs nothing of Encord's types, so that loading the app does not load the SDK."""

from __future__ import annotations

import os

from celery import Celery

from celery_agents import QueueRunner

app = Celery("tests.cli.light_app")
runner = QueueRunner(os.environ.get("CELERY_AGENTS_PROJECT", "7a4d0000-0000-4000-8000-000000000000"), app=app)


@runner.stage("Pre-label", name="light.pre_label", queue="light")
def pre_label() -> None:
    """Leave every agent task where it is."""
