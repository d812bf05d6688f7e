"""Modal: the agent on machines of theirs, as many as are needed.

    modal run examples/other_queues/modal_app.py

The secret has ENCORD_SSH_KEY, the content of your private key, and CELERY_AGENTS_PROJECT. No Redis and no Celery
worker is involved. ``pre_label.local(spec)`` runs it here.
"""

from __future__ import annotations

from collections import Counter

import modal

from celery_agents import TaskCompletionResult
from examples.other_queues import agents

image = (
    modal.Image.debian_slim(python_version="3.12")
    .pip_install("celery-agents")
    .add_local_python_source("examples")
)
app = modal.App("encord-agents", image=image)

# As a decorator it goes above @runner.stage(…), where the agent is in the same file.
pre_label: modal.Function[[list[str]], str, str] = app.function(
    secrets=[modal.Secret.from_name("encord")], max_containers=5
)(agents.pre_label)


@app.local_entrypoint()
def main() -> None:
    """Send what waits, in lists, and say what became of it."""
    results = map(TaskCompletionResult.model_validate_json, pre_label.map(agents.waiting(20)))
    print(Counter(outcome.outcome for result in results for outcome in result.outcomes))
