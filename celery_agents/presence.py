"""Find out which agent tasks of a batch are still at their stage, at no more than one call for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents.messages import Outcome
from celery_agents.work import Work, still_open

if TYPE_CHECKING:
    from encord.objects.ontology_labels_impl import LabelRowV2
    from encord.workflow.stages.agent import AgentPathway, AgentStage

    from celery_agents.gateway.project import Gateway

#: How often Encord is asked where they are. There is no other attempt at this: the next delivery knows of no death.
LOOKS_FOR_THE_DEAD = 3
MOVED_BY_THE_DEAD = "An earlier delivery of its message moved it, and died before it could say so."
LEFT_BEFORE = "It had left the stage before its agent could run."
MOVED_ELSEWHERE = "It left the stage by another pathway; somebody else moved it."


def find_present(
    works: Sequence[Work], stage: AgentStage, encord: Gateway, label_row_options: Mapping[str, Any] | None
) -> None:
    """Decide GONE for each agent task that has left *stage*.

    Args:
        works: Of whom to find out.
        stage: Where they should be.
        encord: The project.
        label_row_options: Where label rows are needed: how to list them. Their metadata says at which stage each one
            is, so that nobody else has to be asked. None lists the agent tasks instead.
    """
    try:
        if label_row_options is None:
            _ask_stage(works, stage, encord)
        else:
            _ask_label_rows(works, stage, encord, label_row_options)
    except Exception as error:
        for work in still_open(works):
            work.fail(error, "load")


def _ask_stage(works: Sequence[Work], stage: AgentStage, encord: Gateway) -> None:
    present = encord.tasks_at(stage, [work.spec.data_hash for work in works])
    for work in works:
        work.listed = present.get(work.spec.uuid)
        if work.listed is None:
            work.decide(Outcome.GONE, LEFT_BEFORE)


def _ask_label_rows(
    works: Sequence[Work], stage: AgentStage, encord: Gateway, options: Mapping[str, Any]
) -> None:
    rows = encord.label_rows([work.spec for work in works], options)
    unsure = []
    for work in works:
        work.row = rows.get(work.spec.uuid)
        whereabouts = encord.stage_of(work.row, work.spec) if work.row is not None else None
        if whereabouts is None:
            unsure.append(work)
        elif whereabouts != stage.uuid:
            work.decide(Outcome.GONE, LEFT_BEFORE)
    _ask_stage(unsure, stage, encord)
    for work in still_open(unsure):
        if work.row is None:
            work.fail(
                LookupError(
                    f"Data unit {work.spec.data_hash} has no label row on branch {work.spec.label_branch_name!r}."
                ),
                "load",
            )


def credit_the_dead(works: Sequence[Work], stage: AgentStage, encord: Gateway) -> None:
    """Look where those are that are GONE, after an earlier delivery of the message has died.

    It may have died between moving them and saying so. What is at the end of one of the stage's pathways now counts as
    moved by it: its claim kept all other messages away. Where Encord does not answer they stay GONE, which is true too.
    The alternative, to note each move in the ledger before it is made, would cost every message a round trip.
    """
    gone = [work for work in works if work.outcome and work.outcome.detail == LEFT_BEFORE]
    ends = {pathway.destination_uuid: pathway for pathway in stage.pathways}
    rows = _rows_of(gone, encord)
    found = [(work, encord.stage_of(row, work.spec)) for work in gone if (row := rows.get(work.spec.uuid))]
    for work, whereabouts in found:
        if whereabouts in ends:
            work.pathway = ends[whereabouts]
            work.decide(Outcome.PROCEEDED, MOVED_BY_THE_DEAD)


def _rows_of(works: Sequence[Work], encord: Gateway) -> Mapping[UUID, LabelRowV2]:
    for _ in range(LOOKS_FOR_THE_DEAD):
        with suppress(Exception):
            return encord.label_rows([work.spec for work in works], {})
    return {}


def settle_carried_moves(
    works: Sequence[Work], moves: Mapping[UUID, UUID], stage: AgentStage, encord: Gateway
) -> None:
    """Take up moves that an earlier attempt decided and did not get through: their agents do not run again.

    An agent task that is no longer here was moved by that attempt, whose answer was lost, unless it is now at the end
    of another pathway.

    Args:
        works: The whole batch.
        moves: Agent task -> pathway, from the earlier attempt.
        stage: Where they should be.
        encord: The project.
    """
    pathways = {pathway.uuid: pathway for pathway in stage.pathways}
    carried = [work for work in still_open(works) if moves.get(work.spec.uuid) in pathways]
    for work in carried:
        work.pathway = pathways[moves[work.spec.uuid]]
        work.is_saved = True
    try:
        present = encord.tasks_at(stage, [work.spec.data_hash for work in carried])
        left = [work for work in carried if work.spec.uuid not in present]
        rows = encord.label_rows([work.spec for work in left], {})
    except Exception as error:
        for work in carried:
            work.fail(error, "move")
        return
    for work in left:
        row = rows.get(work.spec.uuid)
        whereabouts = encord.stage_of(row, work.spec) if row is not None else None
        if _took_another_pathway(whereabouts, work.pathway, stage):
            work.decide(Outcome.GONE, MOVED_ELSEWHERE)
        else:
            work.decide(Outcome.PROCEEDED, "An earlier attempt moved it; its answer was lost.")


def _took_another_pathway(whereabouts: UUID | None, chosen: AgentPathway | None, stage: AgentStage) -> bool:
    destinations = {pathway.destination_uuid for pathway in stage.pathways}
    return whereabouts in destinations and chosen is not None and whereabouts != chosen.destination_uuid
