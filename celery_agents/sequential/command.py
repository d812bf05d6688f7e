"""The command line of a runner: ``runner.run()``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from celery_agents.cli.signals import TerminatedError
from celery_agents.cli.terminal import ExitCode, Terminal, table
from celery_agents.errors import AgentsError
from celery_agents.messages import Outcome
from celery_agents.sequential.stage_pass import PassOptions
from celery_agents.sequential.summary import RunSummary

if TYPE_CHECKING:
    from celery_agents.sequential.runner import Runner

#: The shell's exit code for SIGTERM.
TERMINATED = 143
#: Failures that are told one by one; all are in the log above.
TOLD = 10


def command(runner: Runner) -> click.Command:
    """Return the command that runs *runner*; its options are the arguments of ``Runner.__call__``."""

    @click.command()
    @click.option(
        "--refresh-every",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Look for new agent tasks every so many seconds, without end.  [default: once]",
    )
    @click.option(
        "--num-retries",
        type=click.IntRange(min=0),
        default=3,
        show_default=True,
        help="How often an agent task that failed is tried again.",
    )
    @click.option(
        "--task-batch-size",
        type=click.IntRange(min=1),
        default=300,
        show_default=True,
        help="How many agent tasks are loaded and committed together.",
    )
    @click.option("--project-hash", type=click.UUID, help="The project, unless the program names it.")
    @click.option(
        "--max-tasks-per-stage",
        type=click.IntRange(min=1),
        metavar="NUMBER",
        help="How many agent tasks of each stage to take at most.  [default: all]",
    )
    def run(
        refresh_every: float | None,
        num_retries: int,
        task_batch_size: int,
        project_hash: UUID | None,
        max_tasks_per_stage: int | None,
    ) -> None:
        """Run the agents of this program on what waits at their stages.

        \b
        Exit codes:
          0    everything that waited is done
          1    something FAILED, or key, project or stages cannot be used
          130  interrupted (143: terminated); what was done is committed
        """  # noqa: D301 - click reads \b
        options = PassOptions(
            num_retries=num_retries, task_batch_size=task_batch_size, max_tasks_per_stage=max_tasks_per_stage
        )
        raise click.exceptions.Exit(_run(runner, project_hash, options, refresh_every))

    return run


def _run(runner: Runner, project_hash: UUID | None, options: PassOptions, refresh_every: float | None) -> int:
    """Run, tell what became of everything, and return the exit code."""
    summary = RunSummary()
    try:
        runner.run_into(summary, project_hash, options, refresh_every)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except TerminatedError:
        return TERMINATED
    except Exception as error:
        raise _explained(error) from error
    finally:
        _tell(summary)
    return ExitCode.FAILED if summary.failed else ExitCode.DONE


def _tell(summary: RunSummary) -> None:
    terminal = Terminal()
    if summary.stages:
        rows = [(each.stage, *(each.counts[outcome] for outcome in Outcome)) for each in summary.stages]
        terminal.say(table(("stage", *Outcome), rows, right=tuple(Outcome)))
    for outcome in summary.failures[:TOLD]:
        error = outcome.error
        reason = f"{error.type.removeprefix('builtins.')}: {error.detail}" if error else ""
        terminal.err.print(f"FAILED {outcome.data_title or outcome.task_uuid}: {reason}", markup=False)
    if summary.failed > TOLD:
        terminal.note(f"… and {summary.failed - TOLD:,} more; each is in the log.")


def _explained(error: Exception) -> Exception:
    """Return what click ends the program with: a sentence for what users can cause, *error* itself otherwise."""
    from celery_agents.cli.sentences import CommandError, encord_refuses  # here, because it imports Celery

    if isinstance(error, AgentsError):
        return CommandError(str(error))
    return CommandError(encord_refuses(error)) if type(error).__module__ == "encord.exceptions" else error
