"""redis_allocator's RedisTaskQueue: a process that listens, and one that asks.

python -m benchmarks.apps.redis_allocator_queue listen|ask
"""

from __future__ import annotations

import os
import sys
import time
import uuid

from redis import StrictRedis
from redis_allocator.task_queue import RedisTask, RedisTaskQueue, TaskExecutePolicy

from benchmarks.conversation import answer


def done(task: RedisTask) -> str:
    """Do nothing; None would be no result there."""
    return "done"


# It waits in blocking calls for as long as redis-py 8 waits for an answer by default.
redis = StrictRedis.from_url(os.environ["BROKER_URL"], decode_responses=True, socket_timeout=None)
queue = RedisTaskQueue(redis, "benchmarks", task_fn=done)


def query(number: int) -> list[float]:
    """Have so many tasks done by the listener, one after the other; return the seconds of each."""
    return [_seconds() for _ in range(number)]


def _seconds() -> float:
    began = time.perf_counter()
    queue.query(str(uuid.uuid4()), "task", {}, policy=TaskExecutePolicy.Remote)
    return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        queue.listen(["task"], workers=2)
    else:
        answer({"query": query})
