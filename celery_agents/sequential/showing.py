"""How far a pass over a stage is: a bar while somebody looks at a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

#: Told of each agent task: how many of the pass are through, and how many of those failed.
OnProgress = Callable[[int, int], None]
#: The title of a stage -> a context in which the pass over it is shown, and what to tell.
Show = Callable[[str], AbstractContextManager[OnProgress]]


def nowhere(title: str) -> AbstractContextManager[OnProgress]:  # noqa: ARG001  (nobody sees it)
    """Show nothing."""
    return nullcontext(lambda done, failed: None)  # noqa: ARG005  (nor this)


def on_terminal(most: int | None) -> Show:
    """Return what shows a bar on standard error.

    Args:
        most: How many agent tasks a pass has at most, where that is known.
    """

    @contextmanager
    def show(title: str) -> Iterator[OnProgress]:
        # Here, because rich takes as long to import as all the rest of this package.
        from celery_agents.cli.meter import Meter
        from celery_agents.cli.terminal import Terminal

        with Meter(Terminal(), title) as meter:
            yield lambda done, failed: meter.update(done, most, _text(done, failed))

    return show if sys.stderr.isatty() else nowhere


def _text(done: int, failed: int) -> str:
    return f"{done:,} done, {failed:,} failed" if failed else f"{done:,} done"
