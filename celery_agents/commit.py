"""Write a batch's answers to Encord: first everything that is saved, then the moves; never a move whose save failed.

One request each where nothing is wrong. What Encord refuses is narrowed down, so that each agent task gets the outcome
that is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from celery_agents.isolation import isolate
from celery_agents.messages import Outcome
from celery_agents.work import Work, still_open

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway

#: Moves in one request: the SDK's own chunk. A request is all or nothing, so what is told of it is true for all of it.
MOVES_PER_REQUEST = 1000

#: Seconds after which a save that failed is tried again here, and not in the message's next attempt: labels do not
#: travel in messages, so their agents would have to run again.
SAVE_PAUSES = (0.0, 0.5)
#: Seconds after which a failure is one of a kind that holds workers: not to be met twice in a row.
SLOW_FAILURE = 2.0

LEFT_MEANWHILE = "It left the stage while its agent ran; somebody else moved it."

IsAboutEverything = Callable[[Exception], bool]


def commit(
    works: Sequence[Work], stage: AgentStage, encord: Gateway, is_about_everything: IsAboutEverything
) -> None:
    """Send the writes of the agent tasks that are answered, then move those, and decide what became of each."""
    _stage_priorities(works, encord)
    answered = [work for work in still_open(works) if work.is_answered]
    _save(answered, encord, is_about_everything)
    for work in still_open(answered):
        work.is_saved = True
        if work.pathway is None:
            outcome = Outcome.PROCEEDED if work.is_moved_by_agent else Outcome.HELD
            work.decide(outcome, "The agent moved it by itself." if work.is_moved_by_agent else None)
    moving = [work for work in still_open(works) if work.pathway is not None]
    for start in range(0, len(moving), MOVES_PER_REQUEST):
        _move(moving[start : start + MOVES_PER_REQUEST], stage, encord, is_about_everything)


def _stage_priorities(works: Sequence[Work], encord: Gateway) -> None:
    prioritised = [work for work in still_open(works) if work.priority is not None]
    # Only the label row can set a priority, and only where it was read with its place in the workflow.
    rowless = [work for work in prioritised if work.row is None or work.row.workflow_graph_node is None]
    try:
        found = encord.label_rows([work.spec for work in rowless], {})
    except Exception as error:
        for work in rowless:
            work.fail(error, "save")
        return
    for work in prioritised:
        row = found.get(work.spec.uuid, work.row)
        try:
            if row is None:
                raise LookupError(
                    f"Data unit {work.spec.data_hash} has no label row whose priority could be set."
                )
            assert work.priority is not None  # chosen above
            row.set_priority(work.priority, bundle=work.staged)
        except Exception as error:
            work.fail(error, "save")


def _save(works: Sequence[Work], encord: Gateway, is_about_everything: IsAboutEverything) -> None:
    def send(some: Sequence[Work]) -> None:
        _insist(lambda: encord.send([work.staged for work in some if work.has_staged]), encord)

    for work, error in isolate(works, send, is_about_everything):
        work.fail(error, "save")


def _insist(save: Callable[[], None], encord: Gateway) -> None:
    """Save, and try again here where that was quick to fail and may pass."""
    for pause in SAVE_PAUSES:
        began = time.monotonic()
        try:
            save()
        except Exception as error:
            trouble = encord.classify(error)
            is_slow = time.monotonic() - began > SLOW_FAILURE
            if not trouble.transient or trouble.is_rate_limit or is_slow:
                raise
            time.sleep(pause)
        else:
            return
    save()


def _move(
    works: Sequence[Work], stage: AgentStage, encord: Gateway, is_about_everything: IsAboutEverything
) -> None:
    if not works:
        return
    try:
        _proceed(works, stage, encord)
    except Exception as error:
        if is_about_everything(error):
            for work in works:
                work.fail(error, "move")
        else:
            _move_those_still_there(works, stage, encord, is_about_everything)
    else:
        for work in works:
            work.decide(Outcome.PROCEEDED)


def _proceed(works: Sequence[Work], stage: AgentStage, encord: Gateway) -> None:
    encord.proceed(stage, [(work.spec.uuid, work.pathway.uuid) for work in works if work.pathway])


def _move_those_still_there(
    works: Sequence[Work], stage: AgentStage, encord: Gateway, is_about_everything: IsAboutEverything
) -> None:
    """Settle a refused request. Encord refuses all of it for one agent task that has left, and does not say which."""
    try:
        present = encord.tasks_at(stage, [work.spec.data_hash for work in works])
    except Exception as error:
        for work in works:
            work.fail(error, "move")
        return
    staying = [work for work in works if work.spec.uuid in present]
    for work in works:
        if work.spec.uuid not in present:
            work.decide(Outcome.GONE, LEFT_MEANWHILE)
    if len(staying) < len(works):
        _move(staying, stage, encord, is_about_everything)
        return
    # All are still there, so the refusal has another reason: find those it is about.
    refused = isolate(staying, lambda some: _proceed(some, stage, encord), is_about_everything)
    for work, reason in refused:
        work.fail(reason, "move")
    for work in still_open(staying):
        work.decide(Outcome.PROCEEDED)
