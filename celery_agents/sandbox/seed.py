"""The default project: two agent stages over data units of every kind.

    Pre-label ── labelled ──────► Route ── large ──► Review ──► Complete
        └─────── nothing found ─► Archive  └─ small ──────────► Complete

Work reaches the second agent stage only through the first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from .projects import Project
from .state import OWNER, Sandbox
from .storage import Kind
from .workflow import StageSpec, StageType

PRE_LABEL = "Pre-label"
ROUTE = "Route"
STAGES = (
    StageSpec(title=PRE_LABEL, pathways={"labelled": ROUTE, "nothing found": "Archive"}),
    StageSpec(title=ROUTE, pathways={"large": "Review", "small": "Complete"}),
    StageSpec(title="Review", type=StageType.REVIEW, forward="Complete", backward=ROUTE),
    StageSpec(title="Complete", type=StageType.DONE),
    StageSpec(title="Archive", type=StageType.DONE),
)

WEIGHTS: Mapping[Kind, int] = {
    Kind.IMAGE: 70,
    Kind.IMAGE_GROUP: 8,
    Kind.IMAGE_SEQUENCE: 6,
    Kind.VIDEO: 8,
    Kind.AUDIO: 3,
    Kind.PLAIN_TEXT: 3,
    Kind.PDF: 2,
}
"""How common each kind of data unit is, in per cent. Data groups are made by those who ask for them."""


def kinds(count: int, seed: int, weights: Mapping[Kind, int] = WEIGHTS) -> list[Kind]:
    """So many kinds in shuffled order: the first of each kind as far as `count` goes, the rest by weight."""
    chance = random.Random(seed)
    chosen = list(weights)[:count]
    chosen += chance.choices(list(weights), weights=list(weights.values()), k=count - len(chosen))
    chance.shuffle(chosen)
    return chosen


def seed_project(
    state: Sandbox, *, tasks: int, seed: int, weights: Mapping[Kind, int] = WEIGHTS, who: str = OWNER
) -> Project:
    """Make the default project with so many tasks, all at its first stage."""
    editor = state.editor().add_object("Object").add_radio("Size", "small", "large").add_text("Note")
    ontology = state.add_ontology("Red boxes", editor.structure, who=who)
    dataset = state.add_dataset("Seeded data", description="Made by the sandbox", who=who)
    units = state.add_data_units(dataset, kinds(tasks, seed, weights))
    for number, unit in enumerate(units):
        unit.item.client_metadata = {"number": number, "kind": unit.kind.value}
    state.add_workflow_template("Pre-label and route", STAGES)
    return state.add_project(
        "Sandbox project",
        stages=STAGES,
        ontology=ontology,
        datasets=[dataset],
        description="Find the red box, then route by its size",
        who=who,
    )
