"""What waits at a stage, read as task specs; or as less, where only its being there or its ``AgentTask`` is asked for.

``AgentStage.get_tasks`` makes an ``AgentTask`` of each, and tries its times in several formats, in Python. That takes
more than ten times as long as this. Whoever needs an ``AgentTask`` makes one of either, see ``Gateway.agent_task``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from encord.common.time_parser import parse_datetime
from encord.workflow.common import TasksQueryParams
from encord.workflow.stages.agent import AgentStage
from pydantic import AwareDatetime, ConfigDict, Field, WrapValidator
from pydantic.alias_generators import to_camel

from celery_agents.messages import TaskSpec


def _instant(written: Any, read: Callable[[Any], datetime]) -> datetime:
    """Read a time as the SDK does: it guesses at what is not ISO 8601, and takes it for UTC where it does not say."""
    try:
        instant = read(written)
    except ValueError:
        return parse_datetime(written)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


#: What is usual is read without us, in half the time.
_Instant = Annotated[
    AwareDatetime | Annotated[datetime, WrapValidator(_instant)], Field(union_mode="left_to_right")
]


class _ListedSpec(TaskSpec):
    """A spec under the names that Encord gives its fields."""

    model_config = ConfigDict(alias_generator=to_camel)

    created_at: _Instant
    updated_at: _Instant


@dataclass(kw_only=True)
class Listed:
    """What Encord tells of an agent task, under the names of ``AgentTask``: less than a spec, and sooner made."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel)

    uuid: UUID
    created_at: _Instant
    updated_at: _Instant
    status: str | None = None
    data_hash: UUID
    data_title: str
    label_branch_name: str
    assignee: str | None = None
    last_actioned_by: str | None = None


class _Filters(TasksQueryParams):
    """The arguments of ``AgentStage.get_tasks``, under the names of the request."""

    assignee: list[str] | None = Field(None, alias="userEmails")
    data_hash: list[UUID] | None = Field(None, alias="dataHashes")
    dataset_hash: list[UUID] | None = Field(None, alias="datasetHashes")
    data_title: str | None = Field(None, alias="dataTitleContains")
    status: list[str] | None = Field(None, alias="statuses")

    def to_dict(self, by_alias: bool = True, exclude_none: bool = True) -> Any:
        """Return the query as it is sent, which ``requests`` takes in place of a dictionary.

        Of a dictionary it would quote each value by itself. For a hundred UUIDs, which have nothing to quote, that
        takes half as long as to send them.
        """
        values = super().to_dict(by_alias=by_alias, exclude_none=exclude_none)
        query = [f"dataHashes={data_hash}" for data_hash in values.pop("dataHashes", ())]
        if values:
            query.append(urlencode(values, doseq=True))
        return "&".join(query).encode()


def list_specs(stage: AgentStage, **filters: Any) -> Iterator[TaskSpec]:
    """Yield the specs of what waits at *stage*, page by page.

    Args:
        stage: The stage.
        filters: Those of ``AgentStage.get_tasks``; each a list, but for ``data_title``.
    """
    return _listed(stage, _ListedSpec, _Filters(**filters))


def look_up(stage: AgentStage, data_hashes: Sequence[UUID]) -> Iterator[Listed]:
    """Yield what waits at *stage* of these data units."""
    return _listed(stage, Listed, _Filters(data_hash=data_hashes))


def _listed(stage: AgentStage, kind: Any, filters: _Filters) -> Iterator[Any]:
    # The SDK's annotation wants a type that its own stages yield.
    return iter(stage._workflow_client.get_tasks(stage.uuid, filters, type_=kind))  # noqa: SLF001
