"""``Runner``: runs agents in this process, one agent task after the other, without a broker.

It is the executor that workers use, with the same isolation: one agent task that fails costs itself. What differs is
around it. Batches come from a listing instead of messages, retries are waited for in place, and what became of
everything is returned as a ``RunSummary``. One call of a runner is a ``Run``, which makes one pass over each stage, or
one after the other for ever; one pass over one stage is a ``StagePass``.
"""

from celery_agents.sequential.runner import Runner
from celery_agents.sequential.summary import RunSummary, StageSummary

#: encord-agents' other name of it.
SequentialRunner = Runner

__all__ = ["RunSummary", "Runner", "SequentialRunner", "StageSummary"]
