"""How far something is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from celery_agents.cli.terminal import Terminal

#: Seconds between two lines in a log: enough to see that it goes on, few enough to read.
LINE_INTERVAL = 2.0


class Meter:
    """Shows progress on stderr while it is entered. The bar is gone afterwards; the last line of a log stays.

    Args:
        terminal: Where to show it; ``--quiet`` shows nothing.
        title: What is going on.
    """

    def __init__(self, terminal: Terminal, title: str) -> None:
        self._terminal = terminal
        self._title = title
        self._bar = _bar(terminal, title) if terminal.err.is_terminal and not terminal.is_quiet else None
        self._latest = ""
        self._shown = ""
        self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print()

    def update(self, done: int, total: int | None, text: str) -> None:
        """Show that *done* of *total* are through, None if their number is not known; *text* says it in words."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, text=text)
            return
        self._latest = text
        if time.monotonic() - self._shown_at >= LINE_INTERVAL:
            self._print()

    def _print(self) -> None:
        if self._latest != self._shown:
            self._terminal.note(f"{self._title}: {self._latest}")
        self._shown, self._shown_at = self._latest, time.monotonic()


def _bar(terminal: Terminal, title: str) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
    )
    bar = Progress(*columns, console=terminal.err, transient=True)
    bar.add_task(title, total=None, text="")
    return bar
