"""encord-agents' published agents, word for word but for the imports: the same labels and moves as with encord-agents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compat.examples import EXAMPLES, PROGRAMS
from tests.compat.places import Engine, Example, a_place_for, run

# The SDK and encord-agents say what they are going to take away.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def outcome(example: Example, engine: Engine) -> tuple[dict[str, Any], int]:
    with a_place_for(example) as place:
        before = place.portrait()
        run(example, engine, place)
        after = place.portrait()
    moved = sum(after["Project"][title]["stage"] != was["stage"] for title, was in before["Project"].items())
    return after, moved


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_labels_and_moves_are_those_of_encord_agents(example: Example) -> None:
    theirs, moved = outcome(example, Engine.THEIR_RUNNER)
    assert moved == len(example.kinds)
    for engine in (Engine.OUR_RUNNER, Engine.OUR_QUEUE, Engine.MIXED_RUNNER, Engine.MIXED_QUEUE):
        ours, _ = outcome(example, engine)
        assert ours == theirs, engine


@pytest.mark.parametrize("example", PROGRAMS, ids=lambda example: example.name)
def test_programs_that_run_themselves(example: Example) -> None:
    theirs, moved = outcome(example, Engine.THEIR_RUNNER)
    assert moved == len(example.kinds)
    ours, _ = outcome(example, Engine.OUR_RUNNER)
    assert ours == theirs
