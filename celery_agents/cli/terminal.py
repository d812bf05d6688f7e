"""What the commands print with, and the exit codes that they share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, TextIO

import click
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from celery_agents.redaction import redact

#: Columns where the output is not a terminal and COLUMNS is not set: a table in a log is not cut.
LOG_WIDTH = 180


class ExitCode(IntEnum):
    """What a command tells a script. 2 is click's, for wrong usage; 130 is the shell's, for Ctrl-C."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 3
    INTERRUPTED = 130


class Terminal:
    """Results go to stdout, everything about the way there to stderr, so that a pipe gets results only."""

    def __init__(self, *, no_color: bool = False, quiet: bool = False) -> None:
        self.out = _console(sys.stdout, no_color)
        self.err = _console(sys.stderr, no_color)
        self.is_quiet = quiet

    @classmethod
    def of(cls, ctx: click.Context) -> Terminal:
        """Return one that respects ``celery --no-color --quiet``."""
        return cls(no_color=bool(ctx.obj.no_color), quiet=bool(ctx.obj.quiet))

    def say(self, *parts: RenderableType) -> None:
        """Print results."""
        for part in parts:
            self.out.print(_clean(part))

    def note(self, text: str, style: str = "dim") -> None:
        """Print something about the way there, unless ``--quiet``."""
        if not self.is_quiet:
            self.err.print(Text(redact(text), style=style))

    def warn(self, text: str) -> None:
        """Print what the user should know although the command goes on."""
        self.err.print(Text.assemble(("Warning: ", "yellow bold"), redact(text)))


def _console(stream: TextIO, no_color: bool) -> Console:
    width = None if stream.isatty() or os.environ.get("COLUMNS") else LOG_WIDTH
    # True or None: False would switch off what the NO_COLOR environment variable asks for.
    return Console(file=stream, no_color=no_color or None, highlight=False, width=width, soft_wrap=False)


def _clean(part: RenderableType) -> RenderableType:
    # A string given to rich is markup, and a title like "[draft]" would vanish.
    return Text(redact(part)) if isinstance(part, str) else part


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """Return a table; columns named in *right* hold numbers and are aligned to the right, None becomes a dash."""
    rendered = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold"
    )
    for column in columns:
        is_number = column in right
        rendered.add_column(
            column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    for row in rows:
        rendered.add_row(*(cell if isinstance(cell, Text) else _text(cell) for cell in row))
    return rendered


def _text(cell: object) -> Text:
    return Text("-", style="dim") if cell is None else Text(redact(str(cell)))


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print *document* as JSON; UUIDs, instants and paths become strings."""
    click.echo(redact(json.dumps(document, indent=indent, default=str, ensure_ascii=False)))


def count(number: int, noun: str) -> str:
    """Return ``1 message``, ``2 messages``, ``1,200 agent tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def celery_command(ctx: click.Context, arguments: str) -> str:
    """Return a command line that the user can paste, for the app that this one was given."""
    app = ctx.find_root().params.get("app")
    option = f" -A {app}" if isinstance(app, str) else ""
    return f"celery{option} {arguments}"


def json_option(function: Any) -> Any:
    """Add ``--json``, the same on every command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of tables.")(
        function
    )
