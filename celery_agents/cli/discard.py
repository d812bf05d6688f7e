"""``celery -A app agents discard``: forget failures and crashes."""

from __future__ import annotations

from typing import Any

import click

from celery_agents.cli.books import books
from celery_agents.cli.failures import Selection, selection_options
from celery_agents.cli.terminal import Terminal, count, json_option, print_json


@click.command("discard")
@selection_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Forget that agent tasks failed, and that workers died of them.

    Nothing changes at Encord: the agent task is still at its stage, and the next sweep sends it again. One that was
    poison (its agent killed workers) gets a new life. An agent task that is chosen is forgotten at every stage.
    "-" reads UUIDs from standard input. Needs a ledger: the setting agents_ledger_url.

    \b
    Examples:
      celery -A app agents discard 0d9c6a1e-…
      celery -A app agents discard --error ValueError --since 1d
      celery -A app agents discard --all --yes

    \b
    Exit codes:
      0  forgotten, or there was nothing to forget
      1  there is no ledger, or it cannot be reached; or you said no
      2  wrong usage
    """  # noqa: D301 - click reads \b
    terminal, selection = Terminal.of(ctx), Selection.of(options)
    all_books = books(ctx.obj.app, options["stages"])
    selection.confirm("Forget", options)
    number = 0
    for book in all_books:
        if selection.uuids and not options["stages"] and selection.since is None:
            uuids = list(selection.uuids)  # also those that have no failure, but a crash
        else:
            uuids = [record.task_uuid for record in selection.records(book, terminal)]
        number += book.ledger.discard(uuids) if uuids else 0
    if options["as_json"]:
        print_json({"discarded": number})
    else:
        terminal.say(f"Forgot {count(number, 'failure')}.")
