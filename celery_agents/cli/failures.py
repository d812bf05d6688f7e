"""Choose among the failures that a ledger keeps: what ``failed``, ``replay`` and ``discard`` have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from celery_agents.cli.books import Book
from celery_agents.cli.given import since, uuids_of
from celery_agents.cli.terminal import Terminal

if TYPE_CHECKING:
    from celery_agents.ledger import Record

#: Failures read in one round trip: usually 5 MB.
PAGE = 1_000


def filter_options(function: Any) -> Any:
    """Add ``--stage``, ``--error`` and ``--since``."""
    for option in (
        click.option(
            "--since",
            callback=since,
            metavar="TIME",
            help="Only later ones: 2h, 1d, or a time in ISO format (UTC).",
        ),
        click.option(
            "--error",
            "error_type",
            metavar="TYPE",
            help="Only this exception: ValueError, or package.module.Error.",
        ),
        click.option(
            "--stage",
            "stages",
            multiple=True,
            metavar="STAGE",
            help="Title or UUID, as declared; repeatable. [all]",
        ),
    ):
        function = option(function)
    return function


def selection_options(function: Any) -> Any:
    """Add what says which failures to act on: UUIDs, ``--all`` and the filters; and ``--yes``."""
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask before acting on --all or --error."),
        filter_options,
        click.option(
            "--all", "takes_all", is_flag=True, help="All that are kept, or all that the filters let through."
        ),
        click.argument("ids", nargs=-1, metavar="[UUID…]"),
    ):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class Selection:
    """Which failures a command acts on: those of some agent tasks, or what the filters let through."""

    uuids: tuple[UUID, ...]
    error_type: str | None
    since: datetime | None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Selection:
        """Read it from ``selection_options``.

        Raises:
            click.UsageError: Neither UUIDs nor ``--all`` or ``--error``, or both.
        """
        is_bulk = options["takes_all"] or options["error_type"] is not None
        if bool(options["ids"]) == is_bulk:
            raise click.UsageError("Give either UUIDs of agent tasks, or --all, or --error TYPE.")
        return cls(tuple(uuids_of(options["ids"])), options["error_type"], options["since"])

    def confirm(self, verb: str, options: Mapping[str, Any]) -> None:
        """Ask on a terminal before acting on what was not named one by one."""
        if self.uuids or options["yes"] or not sys.stdin.isatty():
            return
        kind = f"every {self.error_type}" if self.error_type else "every failure"
        at = f" at {', '.join(options['stages'])}" if options["stages"] else ""
        click.confirm(f"{verb} {kind}{at}?", abort=True, err=True)

    def records(self, book: Book, terminal: Terminal) -> list[Record]:
        """Return the failures, newest first, with their specs; warn of those that cannot be read."""
        if not self.uuids:
            return [each for stage in book.asked_for for each in self._pages(book, stage, terminal)]
        found = book.ledger.failures_of(self.uuids)
        warn_of(terminal, found.complaints)
        stages = book.asked_for
        return [
            each
            for each in found.records
            if (stages == [None] or each.stage_uuid in stages) and (not self.since or each.at > self.since)
        ]

    def _pages(self, book: Book, stage: UUID | None, terminal: Terminal) -> Iterator[Record]:
        skip, total = 0, 1
        while skip < total:
            page = book.ledger.failures(
                stage, since=self.since, error_type=self.error_type, limit=PAGE, skip=skip
            )
            warn_of(terminal, page.complaints)
            yield from page.records
            skip, total = skip + PAGE, page.total


def warn_of(terminal: Terminal, complaints: tuple[str, ...]) -> None:
    """Say which records cannot be read."""
    for each in complaints:
        terminal.warn(each)
