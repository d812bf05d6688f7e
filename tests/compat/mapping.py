"""The tables of the migration page, as data: the tests do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
_ROW = re.compile(r"^\| `(encord_agents[\w.]*)`(.*?) \| (.*) \|$", re.MULTILINE)


def modules() -> dict[str, str]:
    """Their module to ours."""
    return {
        theirs: ours.strip("`") for theirs, _, ours in _rows() if re.fullmatch(r"`celery_agents[\w.]*`", ours)
    }


def not_here() -> set[str]:
    """Modules and names that have no counterpart of the same name."""
    return {theirs for theirs, _, _ in _rows()} - modules().keys()


def with_our_imports(source: str) -> str:
    """Change the imports of a program as the page says."""
    for theirs, ours in sorted(modules().items(), key=lambda pair: -len(pair[0])):
        source = re.sub(rf"\b{re.escape(theirs)}(?=\s+import\b)", ours, source)
    return source


def _rows() -> list[tuple[str, str, str]]:
    return _ROW.findall(PAGE.read_text(encoding="utf-8"))
