"""docs/support.md: each line of its tables names tests, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "support.md").read_text()
ROWS = [
    row for row in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE) if not row.startswith(("what |", "---"))
]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.partition(" |")[0])
def test_a_line_names_tests_that_exist(row: str) -> None:
    what, tests = row.split(" | ")
    named = NAMED.findall(tests)
    assert what
    assert named
    assert ", ".join(f"`{file}::{name}`" for file, name in named) == tests
    assert [name for file, name in named if name not in functions_of(file)] == []


def test_there_are_lines() -> None:
    assert len(ROWS) > 40


def test_every_test_of_this_folder_is_in_a_line_or_about_declaring() -> None:
    """A feature that is tested and that nobody reads of is one that nobody uses."""
    named = {name for _, name in NAMED.findall(PAGE)}
    files = [
        each
        for each in Path(__file__).parent.glob("test_*.py")
        if each.stem not in ("test_declaring", "test_support_table")
    ]
    tests = {name for file in files for name in functions_of(str(file)) if name.startswith("test_")}
    assert tests <= named
