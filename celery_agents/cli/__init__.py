"""``celery -A app agents …``: what Celery's command line gains.

Celery loads every plugin at every invocation of ``celery`` (worker, beat, shell), so this module imports click and
nothing else, and a command's module is imported when that command is asked for. To add a command, write a module with a
``command`` in it and give it a line in ``COMMANDS``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

#: Command, and module of the same name -> its line in ``agents --help``.
COMMANDS = {
    "check": "Verify key, project, stages, broker, backend, workers and clock.",
    "stages": "List the project's agent stages, and which agent serves each.",
    "enqueue": "Send what waits at agent stages to the workers.",
    "status": "Tell what became of messages, by their ids.",
    "watch": "Follow queues and workers live.",
    "ping": "Ask whether a worker is alive: for liveness probes.",
    "outcome": "Tell what became of agent tasks, by their UUIDs.",
    "failed": "List the agent tasks that FAILED.",
    "replay": "Send agent tasks that FAILED again.",
    "discard": "Forget failures and crashes.",
    "release": "Give back what purged messages have claimed.",
}


class _CommandsOnDemand(click.Group):
    """A group that imports a command's module when it is needed, and says in one sentence what went wrong."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # Click's own asks each command for its line, which would import them all.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        from celery_agents import addresses

        try:
            addresses.check(ctx.obj.app.conf)
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # The shell's convention; click would print "Aborted!" and exit with 1.
            raise click.exceptions.Exit(130) from None
        except Exception as error:
            from celery_agents.cli.sentences import as_click_exception

            raise as_click_exception(error, ctx) from error


@click.group(cls=_CommandsOnDemand)
@click.pass_context
def agents(ctx: click.Context, /, **preload_options: Any) -> None:
    """Run Encord workflow agents on Celery: check the set-up, enqueue stages, follow the work.

    \b
    A first session:
      celery -A app agents check              is everything in place?
      celery -A app worker                    in another terminal
      celery -A app agents enqueue --wait     process what waits, see the outcomes

    Each command explains itself: celery -A app agents enqueue --help
    """  # noqa: D301 - click reads \b
    if preload_options:
        # Options that an app adds to every command (app.user_options["preload"]) are delivered by signal.
        from celery.signals import user_preload_options

        user_preload_options.send(sender=agents, app=ctx.obj.app, options=preload_options)
