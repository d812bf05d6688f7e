"""Understand what an agent returned, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from celery_agents.errors import AnswerError

if TYPE_CHECKING:
    from encord.objects.ontology_labels_impl import LabelRowV2
    from encord.workflow.stages.agent import AgentPathway, AgentStage

_STRUCT_FIELDS = ("pathway", "label_row", "label_row_priority")
#: What a pathway is chosen by. A tuple: a union would be put together anew for each answer.
_NAMES = (str, UUID)


class Answer(NamedTuple):
    """An agent's answer, checked."""

    pathway: AgentPathway | None = None
    label_row: LabelRowV2 | None = None
    priority: float | None = None


def read_answer(returned: Any, stage: AgentStage) -> Answer:
    """Return the answer in what an agent *returned*.

    A pathway is given by name or UUID, None holds the agent task where it is. A return struct is known by its fields,
    so that encord-agents' own is accepted as well.

    Raises:
        AnswerError: It is no answer, or names a pathway that the stage does not have.
    """
    if not isinstance(returned, str) and all(hasattr(returned, field) for field in _STRUCT_FIELDS):
        return Answer(
            pathway=_pathway(returned.pathway, stage),
            label_row=returned.label_row,
            priority=_priority(returned.label_row_priority),
        )
    return Answer(_pathway(returned, stage))


def _pathway(chosen: Any, stage: AgentStage) -> AgentPathway | None:
    if chosen is None:
        return None
    if not isinstance(chosen, _NAMES):
        raise AnswerError(
            f"The agent returned {_bounded_repr(chosen)}; return a pathway's name or UUID, a TaskAgentReturnStruct "
            f"or None. {_choices(stage)}"
        )
    for pathway in stage.pathways:
        if chosen in (pathway.name, pathway.uuid) or str(chosen).lower() == str(pathway.uuid):
            return pathway
    raise AnswerError(f"Stage {stage.title!r} has no pathway {_bounded_repr(str(chosen))}. {_choices(stage)}")


def _choices(stage: AgentStage) -> str:
    pathways = ", ".join(f"{pathway.name!r} ({pathway.uuid})" for pathway in stage.pathways)
    return f"Its pathways are: {pathways}." if pathways else "It has no pathways."


def _priority(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise AnswerError(f"A label row's priority is a number from 0.0 to 1.0, not {_bounded_repr(value)}.")


def _bounded_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}… ({type(value).__name__})"
