"""What is loaded once for this process and kept until it ends: dependencies with ``scope="worker"``."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from celery_agents import loop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing that is kept."""

    value: Any
    clean_up: ExitStack
    belongs_to: tuple[
        object, ...
    ]  #: what its key stands for by ``id``, and which must therefore live as long


class Resources:
    """The things that one process keeps."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Kept] = {}
        self._loading: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()
        #: Where coroutines have them loaded. Not in the loop's own threads: all of those could come to wait for one
        #: that is loaded by a coroutine, which may want such a thread itself.
        self.loaders = ThreadPoolExecutor(8, thread_name_prefix="agents-resources")

    def find(self, key: Hashable) -> Kept | None:
        """Return what is kept under *key*."""
        return self._kept.get(key)

    def obtain(self, key: Hashable, belongs_to: tuple[object, ...], load: Callable[[ExitStack], Any]) -> Any:
        """Return what is kept under *key*; load it where there is nothing, one thread for all.

        Args:
            key: What it is.
            belongs_to: Objects that *key* names by ``id``.
            load: Makes it. What it enters is left when the process ends, or at once if it fails; then whoever asks
                next tries again.
        """
        kept = self._kept.get(key)
        if kept is None:
            with self._lock_for(key):
                kept = self._kept.get(key) or self._load(key, belongs_to, load)
        return kept.value

    def _lock_for(self, key: Hashable) -> threading.Lock:
        with self._lock:
            return self._loading.setdefault(key, threading.Lock())

    def _load(self, key: Hashable, belongs_to: tuple[object, ...], load: Callable[[ExitStack], Any]) -> Kept:
        with ExitStack() as stack:
            value = load(stack)
            self._kept[key] = kept = Kept(value, stack.pop_all(), belongs_to)
        return kept

    def close(self) -> None:
        """Clean up, the last loaded first; trouble with one is logged and keeps no other."""
        while self._kept:
            _, kept = self._kept.popitem()
            try:
                kept.clean_up.close()
            except Exception:
                logger.exception("What was kept for this process could not be cleaned up:")


_of_process = Resources()


def of_process() -> Resources:
    """Return what this process keeps."""
    return _of_process


def close() -> None:
    """Clean up what this process keeps, and end the event loop that it may live on."""
    _of_process.close()
    loop.stop()


def _forget() -> None:
    """Begin anew in a forked process: what its parent keeps is the parent's, and the parent cleans it up."""
    global _of_process  # noqa: PLW0603  (one for the process)
    _inherited.append(_of_process)  # a generator that nobody refers to any more would be cleaned up here
    _of_process = Resources()


_inherited: list[Resources] = []
os.register_at_fork(after_in_child=_forget)
atexit.register(close)  # where there is no worker; pool processes end without it, see worker.resources
