"""``celery -A app agents check``: is everything in place, and what to do where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from celery_agents.cli import probes, settings
from celery_agents.cli.declarations import agent_tasks
from celery_agents.cli.findings import Finding, Section, Verdict, run
from celery_agents.cli.sentences import reason, sentence
from celery_agents.cli.terminal import ExitCode, Terminal, celery_command, count, json_option, print_json
from celery_agents.redaction import redact
from celery_agents.task import StageTask

#: Verdict -> mark and its style.
MARKS = {
    Verdict.OK: ("✓", "green"),
    Verdict.NOTE: ("·", "cyan"),
    Verdict.WARNING: ("!", "yellow bold"),
    Verdict.FAILED: ("✗", "red bold"),
}


@click.command("check")
@click.option(
    "--timeout", default=20.0, show_default=True, metavar="SECONDS", help="Longest time for all checks."
)
@json_option
@click.pass_context
def command(ctx: click.Context, timeout: float, as_json: bool) -> None:
    """Verify that agents can work, and say what to do where they cannot.

    Looks at the Encord key, the project, its stages and pathways, at this machine's clock, the broker, the result
    backend, the ledger, the workers, and settings that agents suffer from. Nothing is changed, and what is down is a
    finding. A --pool=solo worker cannot answer while it is busy.

    \b
    Examples:
      celery -A app agents check
      celery -A app agents check --json | jq '.findings[] | select(.verdict == "failed")'

    \b
    Exit codes:
      0  agents can work (there may be warnings)
      1  something failed
    """  # noqa: D301 - click reads \b
    tasks = agent_tasks(ctx.obj.app)
    terminal = Terminal.of(ctx)
    found: list[tuple[str, Finding]] = []
    for section, findings in run(_sections(ctx, tasks), timeout):
        found += [(section.title, finding) for finding in findings]
        if not as_json:
            terminal.say(_rendered(section.title, findings))
    verdicts = Counter(finding.verdict for _, finding in found)
    if as_json:
        listed = [{"section": title} | asdict(finding) for title, finding in found]
        print_json({"ok": not verdicts[Verdict.FAILED], "findings": listed})
    else:
        terminal.say(_summary(verdicts))
    ctx.exit(ExitCode.FAILED if verdicts[Verdict.FAILED] else ExitCode.DONE)


def _sections(ctx: click.Context, tasks: Sequence[StageTask]) -> list[Section]:
    app = ctx.obj.app

    def describe(error: BaseException) -> str:
        return sentence(error, app) or f"{type(error).__name__}: {reason(error)}"

    runners = {id(task.runner): task.runner for task in tasks}
    worker = celery_command(ctx, "worker")
    return [
        *(
            Section(f"Encord {each.project_hash}", _encord_probe(each, tasks), describe)
            for each in runners.values()
        ),
        Section("Broker and workers", lambda: probes.broker(app, tasks, worker), describe),
        Section("Ledger", lambda: probes.ledger(app, runners.values()), describe),
        Section("Result backend", lambda: probes.backend(app), describe),
        Section("Settings", lambda: settings.look(app, tasks), describe),
    ]


def _encord_probe(runner: Any, tasks: Sequence[StageTask]) -> Any:
    return lambda: probes.encord(runner, [task for task in tasks if task.runner is runner])


def _rendered(title: str, findings: Sequence[Finding]) -> RenderableType:
    # A grid, so that long text wraps beside its mark and not under it.
    lines = Table.grid(padding=(0, 1))
    for finding in findings:
        mark, style = MARKS[finding.verdict]
        lines.add_row(Text(f"  {mark}", style), Text(finding.subject, "dim"), Text(redact(finding.text)))
        if finding.advice:
            lines.add_row("", "", Text(f"→ {redact(finding.advice)}", style))
    return Group(Text(title, "bold"), lines)


def _summary(verdicts: Counter[Verdict]) -> Text:
    if verdicts[Verdict.FAILED]:
        return Text(
            f"\n{verdicts[Verdict.FAILED]} failed, {count(verdicts[Verdict.WARNING], 'warning')}.", "red bold"
        )
    if verdicts[Verdict.WARNING]:
        return Text(f"\nNothing failed; {count(verdicts[Verdict.WARNING], 'warning')}.", "yellow bold")
    return Text("\nEverything is in place.", "green bold")
