"""An app to start from: copy it and ``celeryconfig.py`` into a folder of your own, and put your model in the middle."""

import os

from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner

app = Celery("quickstart")
app.config_from_object("celeryconfig")
runner = QueueRunner(project_hash=os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label")
def pre_label(task: AgentTask) -> str:
    """Decide, from what is known of the agent task, by which pathway it leaves."""
    return "labelled" if task.data_title.endswith((".png", ".jpg")) else "nothing found"
