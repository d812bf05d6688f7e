"""What commands take from their command line: UUIDs, also from standard input, and instants."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def uuids_of(given: Sequence[str]) -> list[UUID]:
    """Return the UUIDs that were given, each once; "-" stands for those on standard input.

    Raises:
        click.UsageError: Standard input has none, or something is not a UUID.
    """
    uuids = list(dict.fromkeys(map(_uuid, expanded(given))))
    if given and not uuids:
        raise click.UsageError("standard input has no UUIDs.")
    return uuids


def expanded(given: Sequence[str]) -> Iterator[str]:
    """Yield what was given; "-" stands for the words on standard input."""
    for each in given:
        if each == "-":
            yield from sys.stdin.read().split()
        else:
            yield each


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a UUID.", param_hint="UUID") from None


def since(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    """Return the instant that an option names: so long ago (``2h``, ``1d``), or a time in ISO format, in UTC.

    Raises:
        click.BadParameter: It is neither.
    """
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        instant = datetime.fromisoformat(text)
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        complaint = f"{text!r} is neither like 2h or 1d nor like 2025-01-31T12:00."
        raise click.BadParameter(complaint, ctx, param) from None
