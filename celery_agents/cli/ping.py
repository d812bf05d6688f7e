"""``celery -A app agents ping``: does a worker answer, listen, and get on? For liveness probes of containers."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from celery import Celery
from celery.utils.nodenames import gethostname

from celery_agents.cli.declarations import agent_tasks
from celery_agents.cli.sentences import CommandError
from celery_agents.cli.terminal import ExitCode, Terminal, json_option, print_json
from celery_agents.cli.workers import CONNECT_TIMEOUT, PATIENT_TIMEOUT, can_be_asked, reach_broker, within

#: The inspect command of ``celery_agents.worker.stuck``.
QUESTION = "agents_health"

#: Worker -> what it answered.
Answers = dict[str, dict[str, Any]]


@click.command("ping")
@click.option(
    "--queue",
    "-Q",
    "queues",
    multiple=True,
    metavar="QUEUE",
    help="It must listen to this one; repeatable. [those of the app's agents]",
)
@click.option(
    "--destination",
    "-d",
    "names",
    multiple=True,
    metavar="NAME",
    help="Ask the worker of this name; repeatable. [all on this host]",
)
@click.option("--anywhere", is_flag=True, help="Ask the workers on all hosts.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time to wait for answers.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    queues: tuple[str, ...],
    names: tuple[str, ...],
    anywhere: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Ask whether a worker is alive: it answers, listens to the queues, and is not stuck.

    Made for the liveness probe of a container. Unless told otherwise it asks the workers on this host, which in a
    container is the one worker in it, by the host name that is in the worker's name (celery@HOSTNAME). Each queue needs
    a worker that listens to it and is not stuck; each worker named with --destination has to answer.

    A worker is stuck when it has free slots and fetches nothing while its queue is not empty. It reconnects by itself
    after 30 s (the setting agents_stuck_after), and exits when that does not help.

    A --pool=solo worker cannot answer while it is busy: give it another pool, or no liveness probe. Without the broker
    nobody can answer: give the probe more failures than a restart of your broker takes.

    \b
    Examples:
      celery -A app agents ping --queue gpu
      celery -A app agents ping --destination celery@web-1 --timeout 10
      celery -A app agents ping --anywhere --json

    \b
    In Kubernetes:
      livenessProbe:
        exec: {command: [celery, -A, app, agents, ping, --queue, gpu]}
        periodSeconds: 30
        timeoutSeconds: 20
        failureThreshold: 3

    \b
    Exit codes:
      0  it is alive
      1  nobody answers, it does not listen, it is stuck, or the broker cannot be reached
      2  wrong usage
    """  # noqa: D301 - click reads \b
    app = ctx.obj.app
    if names and anywhere:
        raise click.UsageError("--destination names workers, --anywhere asks all: give one of them.")
    wanted = tuple(dict.fromkeys(queues or (task.queue_name for task in agent_tasks(app))))
    asked = Asked(app, names, anywhere, timeout)
    answers = asked.about(wanted)
    trouble = asked.trouble(wanted, answers)
    if as_json:
        print_json({"ok": trouble is None, "trouble": trouble, "queues": wanted, "workers": answers})
        ctx.exit(ExitCode.DONE if trouble is None else ExitCode.FAILED)
    if trouble is not None:
        raise CommandError(trouble, color=False if ctx.obj.no_color else None)
    Terminal.of(ctx).say(f"{', '.join(answers)}: alive, listening to {_quoted(wanted)}")


@dataclass(frozen=True)
class Asked:
    """Whom to ask, and for how long to listen."""

    app: Celery
    names: Sequence[str] = ()  #: of workers; otherwise those on this host
    anywhere: bool = False  #: or on any
    timeout: float = 5.0  #: seconds

    def about(self, queues: Sequence[str]) -> Answers:
        """Return what the workers answer: the first one's alone if that will do, which takes milliseconds.

        Raises:
            CommandError: Workers cannot be asked over this broker.
            kombu.exceptions.OperationalError: The broker cannot be reached.
        """
        reach_broker(self.app)
        if not can_be_asked(self.app):
            raise CommandError("This broker cannot broadcast, so workers cannot be asked.")
        answers = self._ask(self.timeout, limit=max(len(self.names), 1))
        if answers and not self.names and self.trouble(queues, answers):
            # There may be others, and it takes silence to know that there are not.
            answers |= self._ask(min(self.timeout, PATIENT_TIMEOUT), limit=None)
        return answers

    def _ask(self, seconds: float, limit: int | None) -> Answers:
        whom: dict[str, Any] = {}
        if self.names:
            whom = {"destination": list(self.names)}
        elif not self.anywhere:
            whom = {"pattern": f"*@{glob.escape(gethostname())}", "matcher": "glob"}

        def broadcast() -> Any:
            return self.app.control.broadcast(QUESTION, reply=True, timeout=seconds, limit=limit, **whom)

        replies = within(seconds + CONNECT_TIMEOUT, broadcast)
        return {name: answer for reply in replies or () for name, answer in reply.items()}

    def trouble(self, queues: Sequence[str], answers: Mapping[str, Mapping[str, Any]]) -> str | None:
        """Say what is wrong, or return None if nothing is."""
        missing = [name for name in self.names if name not in answers]
        if missing or not answers:
            return self._nobody_answers(missing)
        with_agents = {name: answer for name, answer in answers.items() if "queues" in answer}
        if not with_agents:
            return f"{', '.join(answers)} answers, but has no agents: it runs another app, or an older celery-agents."
        found = (_trouble_with(queue, with_agents) for queue in queues)
        return next(filter(None, found), None)

    def _nobody_answers(self, missing: Sequence[str]) -> str:
        if missing:
            return f"{', '.join(missing)} did not answer within {self.timeout:g} s."
        where = "" if self.anywhere else f" on host {gethostname()}"
        hint = "" if self.anywhere else "; --destination asks one by its name"
        return f"No worker{where} answered within {self.timeout:g} s{hint}."


def _trouble_with(queue: str, answers: Mapping[str, Mapping[str, Any]]) -> str | None:
    listening = [name for name, answer in answers.items() if queue in answer["queues"]]
    if not listening:
        verb = "answers, but does not listen" if len(answers) == 1 else "answer, but do not listen"
        others = sorted({each for answer in answers.values() for each in answer["queues"]})
        instead = f"listening to {_quoted(others)}" if others else "listening to none"
        return f"{', '.join(sorted(answers))} {verb} to queue {queue!r}; {instead}."
    stuck = [name for name in listening if answers[name].get("is_stuck")]
    if len(stuck) < len(listening):
        return None
    answer = answers[stuck[0]]
    waiting = ", ".join(f"{number} in queue {name!r}" for name, number in answer["waiting"].items())
    return (
        f"{', '.join(stuck)} answers, but is stuck: it has free slots and has fetched nothing for "
        f"{answer['idle_for']:.0f} s, while messages wait ({waiting})."
    )


def _quoted(queues: Sequence[str]) -> str:
    return f"queue{'s' if len(queues) > 1 else ''} {', '.join(map(repr, queues))}"
