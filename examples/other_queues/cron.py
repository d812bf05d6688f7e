"""A script for cron, which starts it again whether or not the last one is through.

    */5 * * * *  cd /srv/agents && python -m examples.other_queues.cron

Two at the same time need no lock file, which a machine that goes down leaves behind. A query claims in the ledger
what it is about to run, so that of any number of scripts, and of workers, one runs it; the others wait for what
becomes of it. If its holder dies a claim lapses by itself. An agent task that was listed before another script was
done with it is found GONE before its agent is called: Encord says where it is.

The ledger is the Redis of ``agents_ledger_url``. Without one nothing is claimed: an agent may run twice on an agent
task then, and Encord still lets it move only once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from celery import current_app

from celery_agents import ExecutionPolicy, Outcome, TaskOutcome
from examples.other_queues.agents import pre_label, runner, waiting

current_app.conf.agents_ledger_url = os.environ.get("AGENTS_LEDGER_URL")


def run() -> Iterator[TaskOutcome]:
    """Run what waits, here, and yield what became of each agent task."""
    for specs in waiting(50):
        yield from runner.query_many(pre_label, specs, policy=ExecutionPolicy.LOCAL)


if __name__ == "__main__":
    failed = [each for each in run() if each.outcome is Outcome.FAILED]
    for each in failed:
        print(
            each.data_title, each.error.detail if each.error else "", file=sys.stderr
        )  # cron sends it by mail
    sys.exit(1 if failed else 0)
