"""Write the progress of a running message now and then, beside its agents: they neither wait for it nor fail by it."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from celery_agents.messages import ProgressReport, TaskProgress
from celery_agents.progress import Progress

logger = logging.getLogger(__name__)

#: Seconds between two reports of one message: two writes a second at most, none for a quick batch.
REPORT_INTERVAL = 0.5
#: Of how many agent tasks a report has what their agents told: those that were told of last. Some 20 kB.
MOST_TOLD = 100
#: Seconds for which the end of a message waits for a report that is being written: it must not come after the result.
LAST_WORD = 30.0


class Reporter:
    """Hears how far a message and its agent tasks are, and writes that from a thread of its own, until it is left.

    What is new is written after ``REPORT_INTERVAL`` at the latest, also when nothing else happens. A context manager:
    once it is left, nothing is written any more.

    Args:
        write: Stores a report; None where nobody wants any. Whatever it raises is logged: Celery writes, and retries,
            the result itself.
        total: How many agent tasks the message has.
    """

    def __init__(self, write: Callable[[ProgressReport], object] | None, total: int) -> None:
        self._write = write or (lambda _: None)
        self._total = total
        self._done = self._failed = 0
        self._told: OrderedDict[UUID | None, Progress] = OrderedDict()
        self._changed = threading.Condition()
        self._has_news, self._is_closed = False, write is None
        self._due_at = time.monotonic() + REPORT_INTERVAL
        self._thread: threading.Thread | None = None

    def __call__(self, done: int, failed: int) -> None:
        """Know that *done* agent tasks are through, of which *failed* FAILED."""
        # Without the lock, which few agent tasks need: a report that is due is made after this, or another one follows.
        self._done, self._failed = done, failed
        is_last = done >= self._total  # then the result follows
        if not (is_last or self._has_news):
            with self._changed:
                self._note_news()

    def hear(self, progress: Progress) -> None:
        """Know that an agent has told something."""
        with self._changed:
            self._told[progress.task_uuid] = progress
            self._told.move_to_end(progress.task_uuid)
            if len(self._told) > MOST_TOLD:
                self._told.popitem(last=False)
            self._note_news()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(LAST_WORD)

    def _note_news(self) -> None:
        if self._has_news or self._is_closed:
            return
        self._has_news = True
        self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="agent-progress", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (report := self._next()) is not None:
            try:
                self._write(report)
            except Exception as error:  # noqa: BLE001  (whatever the backend raises)
                logger.warning("The progress of a message could not be written: %s", type(error).__name__)

    def _next(self) -> ProgressReport | None:
        """Wait until a report is due, and return it; None when there will be none any more."""
        with self._changed:
            while not self._is_closed:
                left = self._due_at - time.monotonic()
                if self._has_news and left <= 0:
                    self._has_news, self._due_at = False, time.monotonic() + REPORT_INTERVAL
                    return self._report()
                self._changed.wait(left if self._has_news else None)
        return None

    def _report(self) -> ProgressReport:
        tasks = {uuid: latest for uuid, each in self._told.items() if uuid and (latest := each.latest)}
        return ProgressReport(
            done=self._done,
            failed=self._failed,
            total=self._total,
            text=latest_text(tasks.values()),
            at=datetime.now(UTC),
            tasks=tasks,
        )


def latest_text(told: Iterable[TaskProgress]) -> str | None:
    """Return the text of what was told last; None where nothing was."""
    last = max(told, key=lambda each: each.at, default=None)
    return last.text if last else None
