"""Celery settings that agents suffer from, why, and what to set instead: one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from celery_agents.cli.findings import Finding, Verdict, ok
from celery_agents.task import StageTask

#: Content types that can run code, or need a library that can, when they are read.
UNSAFE_CONTENT = frozenset({"pickle", "application/x-python-serialize", "yaml", "application/x-yaml"})


@dataclass(frozen=True, slots=True)
class SetUp:
    """What the rules look at."""

    conf: Any  #: the app's configuration
    tasks: Sequence[StageTask]  #: what a task declares wins over the configuration

    def any_task(self, attribute: str) -> bool:
        """Whether *attribute* is on for any agent task."""
        return any(getattr(task, attribute, None) for task in self.tasks)

    def every_task(self, attribute: str) -> bool:
        """Whether *attribute* is on for every agent task."""
        return all(getattr(task, attribute, None) for task in self.tasks)


@dataclass(frozen=True, slots=True)
class Rule:
    """When a setting is wrong for agents, and what comes of it."""

    setting: str
    is_broken: Callable[[SetUp], bool]
    verdict: Verdict
    consequence: str
    instead: str


RULES = (
    Rule(
        "accept_content",
        lambda it: bool(UNSAFE_CONTENT.intersection(it.conf.accept_content or ())),
        Verdict.WARNING,
        "whoever can write to the broker can run code in the workers",
        'accept_content = ["json"]',
    ),
    Rule(
        "task_serializer",
        lambda it: any((task.serializer or it.conf.task_serializer) != "json" for task in it.tasks),
        Verdict.FAILED,
        "agent messages are JSON; workers refuse anything else",
        'task_serializer = "json"',
    ),
    Rule(
        "result_serializer",
        lambda it: it.conf.result_serializer != "json",
        Verdict.WARNING,
        "results are read as JSON everywhere; pickled ones run code when read",
        'result_serializer = "json"',
    ),
    Rule(
        "task_ignore_result",
        lambda it: it.any_task("ignore_result"),
        Verdict.WARNING,
        "nothing is stored, so nobody can ask what became of a message",
        "task_ignore_result = False",
    ),
    Rule(
        "task_always_eager",
        lambda it: bool(it.conf.task_always_eager),
        Verdict.WARNING,
        "messages run in the process that sends them, and no worker gets any",
        "task_always_eager = False",
    ),
    Rule(
        "task_acks_late",
        lambda it: not it.every_task("acks_late"),
        Verdict.WARNING,
        "the batch that a killed worker was at is lost until the next sweep",
        "task_acks_late = True",
    ),
    Rule(
        "task_reject_on_worker_lost",
        lambda it: not it.every_task("reject_on_worker_lost"),
        Verdict.WARNING,
        "the batch of a killed pool process (out of memory) is acknowledged and lost",
        "task_reject_on_worker_lost = True",
    ),
    Rule(
        "task_track_started",
        lambda it: not it.every_task("track_started"),
        Verdict.NOTE,
        "a running message shows as QUEUED until its first progress report",
        "task_track_started = True",
    ),
    Rule(
        "worker_prefetch_multiplier",
        lambda it: it.conf.worker_prefetch_multiplier != 1,
        Verdict.NOTE,
        "a busy worker holds batches that an idle one could run",
        "worker_prefetch_multiplier = 1",
    ),
    Rule(
        "result_expires",
        lambda it: not it.conf.result_expires,
        Verdict.NOTE,
        "results are kept for ever and fill the result backend",
        "result_expires = 86400",
    ),
    Rule(
        "worker_send_task_events",
        lambda it: not it.conf.worker_send_task_events,
        Verdict.NOTE,
        "`agents watch` and Flower cannot count what succeeded and failed",
        "worker_send_task_events = True, or celery worker -E",
    ),
)


def look(app: Celery, tasks: Sequence[StageTask]) -> Iterator[Finding]:
    """Yield a finding for each rule that the app's configuration breaks."""
    broken = [rule for rule in RULES if rule.is_broken(SetUp(app.conf, tasks))]
    for rule in broken:
        yield Finding(rule.setting, rule.verdict, rule.consequence, f"set {rule.instead}")
    if not broken:
        yield ok("settings", f"{len(RULES)} rules hold")
