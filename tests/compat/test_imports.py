"""Whatever agents import from encord-agents is here under the same name, or the migration page says what to do."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.compat import mapping


def public_names(module: Any) -> set[str]:
    """What a module defines, and what it says it offers."""
    offered = set(getattr(module, "__all__", ()))
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }
    return offered | defined


def test_the_page_has_tables() -> None:
    assert len(mapping.modules()) >= 10
    assert len(mapping.not_here()) >= 15


@pytest.mark.parametrize(("theirs", "ours"), mapping.modules().items())
def test_every_name_is_there_or_accounted_for(theirs: str, ours: str) -> None:
    names = public_names(importlib.import_module(theirs))
    here = {name for name in names if hasattr(importlib.import_module(ours), name)}
    accounted_for = {entry.removeprefix(f"{theirs}.") for entry in mapping.not_here()}
    assert names - here - accounted_for == set()
    assert names & here & accounted_for == set()


def test_all_their_modules_are_accounted_for() -> None:
    """What the page does not map to ours it names: each of their modules that an agent could import from."""
    package = importlib.import_module("encord_agents")
    assert package.__file__ is not None
    root = Path(package.__file__).parent
    found = {
        ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for file in root.rglob("*.py")
    }
    text = mapping.PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(encord_agents[\w.]*)`", text))
    internal = re.compile(
        # Not for agents to import from: the command line, settings, and pieces of those above.
        r"encord_agents(\.(cli|core\.(settings|constants|exceptions|types|rich_columns|webhooks)|tasks\.runner"
        r"|core\.dependencies\.(utils|serverless)|utils\.generic_utils).*|\.core|\.utils|\.exceptions)?"
    )
    unnamed = {
        each for each in found if not any(each == name or each.startswith(f"{name}.") for name in named)
    }
    assert {each for each in unnamed if not internal.fullmatch(each)} == set()


def test_the_command_of_the_page_does_the_same(tmp_path: Path) -> None:
    (command,) = re.findall(r"```sh\n(perl .*?)\n```", mapping.PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "agents").mkdir()
    pages = sorted((Path(__file__).parent / "published").glob("*.txt"))
    for page in pages:
        (tmp_path / "agents" / f"{page.stem}.py").write_text(page.read_text())
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    for page in pages:
        assert (tmp_path / "agents" / f"{page.stem}.py").read_text() == mapping.with_our_imports(
            page.read_text()
        )
