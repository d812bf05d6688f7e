"""A pool of threads: useful where the agent waits for something, such as a model server.

    python -m examples.other_queues.thread_pool

Time limits cannot interrupt a thread other than the main one, so give what the agent waits for a timeout of its own.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from celery_agents import Outcome, TaskCompletionResult
from examples.other_queues.agents import pre_label, waiting

THREADS = 8


def run() -> Counter[Outcome]:
    """Run what waits, and return how many agent tasks have which outcome."""
    counts: Counter[Outcome] = Counter()
    running: set[Future[str]] = set()
    with ThreadPoolExecutor(THREADS) as pool:
        for specs in waiting(10):
            running.add(pool.submit(pre_label, specs))
            if len(running) == 2 * THREADS:  # no more than that is read ahead
                done, running = wait(running, return_when=FIRST_COMPLETED)
                counts += _counted(done)
        return counts + _counted(running)


def _counted(done: set[Future[str]]) -> Counter[Outcome]:
    results = (TaskCompletionResult.model_validate_json(each.result()) for each in done)
    return Counter(outcome.outcome for result in results for outcome in result.outcomes)


if __name__ == "__main__":
    for outcome, number in run().items():
        print(f"{number:,} {outcome}")
