"""Which agent tasks of a stage to send: ``TaskFilters``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from celery_agents.errors import SetupError

#: What ``AgentTask.status`` can be: the values of the SDK's ``AgentTaskStatus``, which takes others for UNKNOWN.
TASK_STATUSES = ("NEW", "ASSIGNED", "RELEASED", "SKIPPED", "REOPENED", "COMPLETED")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilters:
    """Which agent tasks of a stage to send: the filters of the SDK's ``AgentStage.get_tasks``, and-ed.

    Each takes one value or several, but the title, which takes a piece of it. None is "any"; several that are none
    (``[]``) are "nothing", and not the whole stage.

    Raises:
        SetupError: A status or hash that cannot be one, or more of them than fit into a request.
    """

    status: str | Iterable[str] | None = None
    data_title: str | None = None
    data_hash: str | UUID | Iterable[str | UUID] | None = None
    dataset_hash: str | UUID | Iterable[str | UUID] | None = None
    assignee: str | Iterable[str] | None = None

    def __post_init__(self) -> None:
        for name, check in (
            ("status", _status),
            ("data_hash", _hash),
            ("dataset_hash", _hash),
            ("assignee", str),
        ):
            # Frozen for others; here the one value becomes several, checked, each once.
            object.__setattr__(self, name, _several(name, getattr(self, name), check))

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield the arguments of each ``get_tasks`` call that together list what is wanted, each agent task once.

        Data hashes travel in the URL, which front ends cut off, so that many of them become several requests.
        """
        # The SDK takes 1.3 s to import, and nothing else here needs it.
        from celery_agents.gateway.project import HASHES_PER_REQUEST

        chosen = self._chosen()
        if any(value == [] for value in chosen.values()):
            return
        room = HASHES_PER_REQUEST - len(chosen.get("dataset_hash", ())) - len(chosen.get("assignee", ()))
        if room < HASHES_PER_REQUEST // 2:
            raise SetupError(
                f"Filter for at most {HASHES_PER_REQUEST // 2} datasets and assignees: they travel in a URL."
            )
        hashes = chosen.pop("data_hash", None)
        if hashes is None:
            yield chosen
            return
        for start in range(0, len(hashes), room):
            yield {**chosen, "data_hash": hashes[start : start + room]}

    def as_dict(self) -> dict[str, Any]:
        """Return the filters that are set, as JSON values; ``TaskFilters(**these)`` is the same again."""
        return {
            name: value if isinstance(value, str) else [str(each) for each in value]
            for name, value in self._chosen().items()
        }

    def _chosen(self) -> dict[str, Any]:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in given.items() if value is not None}


def _several(name: str, value: Any, check: Callable[[Any], Any]) -> list[Any] | None:
    if value is None:
        return None
    values = [value] if isinstance(value, str | UUID) else value
    try:
        return list(dict.fromkeys(check(each) for each in values))
    except ValueError as error:
        raise SetupError(f"The filter {name} cannot be {value!r}: {error}.") from None


def _status(value: str) -> str:
    text = str(getattr(value, "value", value)).upper()
    if text not in TASK_STATUSES:
        raise ValueError(f"{text!r} is none of {', '.join(TASK_STATUSES)}")
    return text


def _hash(value: str | UUID) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise ValueError(f"{str(value)!r} is not a UUID") from None
