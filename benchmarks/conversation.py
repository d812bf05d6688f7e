"""Ask a process that runs beside this one: a line of JSON goes in, a line of JSON comes out.

Imports nothing but the standard library: the other end may be an interpreter of another virtual environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any


class Companion:
    """A process at the other end of a conversation."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def ask(self, order: str, **arguments: Any) -> Any:
        """Return what `answer` at the other end says; RuntimeError where that process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([order, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended while it was asked to {order}")
        return json.loads(line)


@contextmanager
def companion(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Companion]:
    """Start a process that calls `answer`; end it by closing its input."""
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    try:
        yield Companion(process)
    finally:
        process.stdin.close()
        process.wait()


def answer(orders: Mapping[str, Callable[..., Any]]) -> None:
    """Carry out orders until the other end is closed. What they print goes to standard error."""
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            order, arguments = json.loads(line)
            print(json.dumps(orders[order](**arguments)), file=answers, flush=True)
