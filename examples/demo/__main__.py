"""``python -m examples.demo``: see the package's docstring; ``make demo`` sets everything up first."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from types import FrameType

#: What ends the demo early: Ctrl-C, ``kill``, a closed terminal.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Columns where the output is no terminal, whose width is then unknown.
LOG_WIDTH = 110

FIRST_LINE = "celery_agents on real parts, all on this machine. Ctrl-C ends it at any time."

#: The signal that asked the demo to end, if one did.
_asked: list[int] = []


class Interrupted(BaseException):
    """Raised in the main thread when a signal asks the demo to end."""


def main() -> int:
    """Run the demo and return its exit code: 0 where all is well, 1 where not, 128 + n after signal n."""
    # Nothing runs yet that has to be stopped. So for the second that the imports take, Ctrl-C just ends this process:
    # an exception would come out of the middle of somebody's module, as a traceback, or be swallowed there.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = _options()
    print(FIRST_LINE, flush=True)
    try:
        code = _run(options)
        # All is stopped. What interrupted the little that is left would be a traceback after the last line.
        _on_ending(signal.SIG_IGN)
    except Interrupted:
        code = 1
    if code and _asked:
        # Also where it surfaced as something else: raised while a class is made, Python 3.11 wraps it.
        print(f"\nStopped by {signal.Signals(_asked[0]).name}; nothing is left running.", file=sys.stderr)
        return 128 + _asked[0]
    return code


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from celery_agents import AgentsError
    from examples.demo.processes import DemoError
    from examples.demo.story import tell
    from examples.demo.view import View

    view = View(Console(width=None if sys.stdout.isatty() else LOG_WIDTH))
    _on_ending(_interrupt)
    try:
        return tell(view, tasks=options.tasks, nodes=options.nodes, logs=options.logs)
    except (DemoError, AgentsError) as error:
        if not _asked:
            view.say(f"The demo failed: {error}", style="red")
        return 1
    except Exception:
        if not _asked:
            raise
        return 1


def _options() -> argparse.Namespace:
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description="Two agent stages on real parts."
    )
    parser.add_argument(
        "--tasks", type=_positive, default=300, metavar="N", help="data units in the project [%(default)s]"
    )
    parser.add_argument(
        "--nodes", type=_positive, default=2, metavar="N", help="Celery workers to start [%(default)s]"
    )
    parser.add_argument(
        "--logs", type=Path, default=Path(".demo"), metavar="DIR", help="where logs go [%(default)s]"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    import argparse

    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"give a number of 1 or more, not {text}")
    return int(text)


def _on_ending(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in ENDING:
        signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # Once: a second Ctrl-C must not break off the stopping of the child processes.
    _on_ending(signal.SIG_IGN)
    _asked.append(number)
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
