"""What became of it all, by four witnesses: Encord's audit, the messages' results, the ledger, the agents' own notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from celery_agents import Outcome
from celery_agents.messages import TaskOutcome
from celery_agents.sandbox import SandboxServer
from tests.worker.conftest import Site


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an agent, as it wrote it down itself."""

    task_uuid: UUID
    message_id: str
    process: int


def runs_in(path: Path) -> list[Run]:
    """Read what the agents wrote down."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [Run(UUID(task), message, int(process)) for task, message, process in lines]


def told_by_encord(sandbox: SandboxServer, expected: int) -> dict[str, int]:
    """Return how many agent tasks were lost, moved more than once, or written to after their move."""
    moves = sandbox.audit.moves()
    return {
        "lost": expected - len(moves),
        "moved twice": sum(number > 1 for number in moves.values()),
        "saved after their move": len(sandbox.audit.late_saves()),
    }


def told_by_results(outcomes: Collection[TaskOutcome], expected: int) -> dict[str, int]:
    """Return how many agent tasks have no outcome in any result, more than one, or another than PROCEEDED."""
    known = {outcome.task_uuid for outcome in outcomes}
    return {
        "without an outcome": expected - len(known),
        "with two outcomes": len(outcomes) - len(known),
        **_others(outcomes, "in the results"),
    }


def told_by_the_ledger(site: Site, expected: int) -> dict[str, int]:
    """Return how many agent tasks are still claimed, not recorded, or recorded as something else than PROCEEDED."""
    ledger, stage = site.runner.ledger, site.module.pre_label.agent_stage
    assert ledger is not None
    moved = [UUID(uuid) for uuid in site.sandbox.audit.moves()]
    records = ledger.outcomes_of(moved).records
    return {
        "still claimed": ledger.in_flight(stage.uuid),
        "not recorded": expected - len(records),
        **_others([record.outcome for record in records], "in the ledger"),
    }


def _others(outcomes: Iterable[TaskOutcome], where: str) -> dict[str, int]:
    kinds = Counter((outcome.outcome, outcome.detail) for outcome in outcomes)
    return {
        f"{kind} {where} ({detail})": number
        for (kind, detail), number in kinds.items()
        if kind is not Outcome.PROCEEDED
    }


def complaints(*told: dict[str, int]) -> list[str]:
    """Return what is wrong, as sentences; nothing, hopefully."""
    return [f"{number} {what}" for each in told for what, number in each.items() if number]
