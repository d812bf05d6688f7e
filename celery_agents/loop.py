"""This process's event loop: where coroutines of agents and dependencies run, whichever thread wants their results.

It has a thread of its own and lives as long as the process. So it makes no difference whether an agent is called in a
pool process, by one of several threads or greenlets, or from a notebook whose own loop is running; the thread that
wants the results is free to commit them; and what is kept for the process, such as an HTTP session, stays on one loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

#: Threads for what a coroutine hands to one: ``asyncio.to_thread``, and dependencies that are no coroutines. asyncio's
#: own default, six on a machine of two cores, would have the downloads of 16 agents wait for each other.
THREADS = 64
#: Seconds that the end of the process waits for what is left on the loop.
PATIENCE = 10.0

_opening = threading.Lock()
_running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None


def loop() -> asyncio.AbstractEventLoop:
    """Return the loop, which is started by whoever asks first."""
    return _started()[0]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* on the loop and wait for it; what interrupts the waiting thread cancels it.

    Raises:
        RuntimeError: The loop itself would have to wait.
        BaseException: Whatever the coroutine raises.
    """
    loop, thread = _started()
    if threading.current_thread() is thread:
        coroutine.close()
        raise RuntimeError("A coroutine of an agent waits for the loop that it runs on: call it in a thread.")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def stop() -> None:
    """End what still runs on the loop, and the loop; calling it where there is none changes nothing.

    What does not heed its cancellation for ``PATIENCE`` seconds is left to the end of the process.
    """
    global _running
    with _opening:
        running, _running = _running, None
    if running is None:
        return
    loop, thread = running
    with suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(_end_all(loop), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_asyncgens()


def _started() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    global _running  # noqa: PLW0603  (one for the process)
    with _opening:
        if _running is None:
            loop = asyncio.new_event_loop()
            loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="agents-loop"))
            thread = threading.Thread(target=_turn, args=(loop,), name="agents-loop", daemon=True)
            thread.start()
            _running = loop, thread
        return _running


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped. asyncio lets ``sys.exit`` in a coroutine end the loop with all the others."""
    is_stopped = False
    while not is_stopped:
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()
            is_stopped = True


def _forget() -> None:
    """Begin anew in a forked process, which has no thread but one."""
    global _opening, _running
    _inherited.append(_running)
    _opening, _running = threading.Lock(), None


#: The loop of the process that this one was forked from: closing it, as the garbage collector would, is not for us.
_inherited: list[Any] = []
os.register_at_fork(after_in_child=_forget)
