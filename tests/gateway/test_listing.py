"""What waits is read as specs, or as less, and is the same that the SDK's own listing tells."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import requests
from encord.common.time_parser import parse_datetime
from encord.workflow.stages.agent import AgentTask, _AgentTasksQueryParams
from pydantic import TypeAdapter

from celery_agents.gateway import listing
from celery_agents.messages import TaskSpec
from tests.execution.conftest import Bench, bench

__all__ = ["bench"]  # the fixture


def told(task: AgentTask) -> dict[str, Any]:
    return task.model_dump(mode="json")


def test_an_agent_task_made_of_what_is_listed_is_the_sdks(bench: Bench) -> None:
    listed = {task.uuid: task for task in bench.stage.get_tasks()}
    specs = list(bench.gateway.list_specs(bench.stage))
    assert [spec.uuid for spec in specs] == list(listed)
    found = bench.gateway.tasks_at(bench.stage, [spec.data_hash for spec in specs])
    assert found.keys() == listed.keys()
    known: list[TaskSpec | listing.Listed] = [*specs, *found.values()]
    for spec in known:
        made = bench.gateway.agent_task(spec, bench.stage)
        assert told(made) == told(listed[spec.uuid])
        assert made.status is listed[spec.uuid].status
        assert made.model_fields_set == listed[spec.uuid].model_fields_set
        assert made.issues is not None
        assert made.model_copy() == made
    bench.gateway.agent_task(specs[-1], bench.stage).proceed("labelled")
    assert [spec.uuid for spec in bench.gateway.list_specs(bench.stage)] == list(listed)[:-1]


@pytest.mark.parametrize("name", ["data_hash", "data_title", "status", "assignee", "dataset_hash"])
def test_filters_are_those_of_the_sdk(bench: Bench, name: str) -> None:
    some = next(iter(bench.stage.get_tasks()))
    dataset = next(iter(bench.gateway.project.list_datasets())).dataset_hash
    value = {
        "data_hash": [some.data_hash],
        "data_title": some.data_title[2:],
        "status": [some.status.value],
        "assignee": ["nobody@example.com"],
        "dataset_hash": [dataset],
    }[name]
    asked: Any = {name: value}
    expected = [task.uuid for task in bench.stage.get_tasks(**asked)]
    assert [spec.uuid for spec in bench.gateway.list_specs(bench.stage, **asked)] == expected


def test_the_query_is_the_one_that_the_sdk_sends() -> None:
    hashes = [uuid4(), uuid4()]
    ours = listing._Filters(
        data_hash=hashes, data_title="a&b = ü/1", status=["NEW", "ASSIGNED"], page_token="t?"
    )
    theirs = _AgentTasksQueryParams(
        data_hashes=hashes, data_title_contains="a&b = ü/1", statuses=["NEW", "ASSIGNED"], page_token="t?"
    )

    def sent(params: Any) -> dict[str, list[str]]:
        url = requests.Request("GET", "https://example.com/tasks", params=params.to_dict()).prepare().url
        return parse_qs(urlsplit(str(url)).query, strict_parsing=True)

    assert sent(ours) == sent(theirs)
    assert requests.Request(
        "GET", "https://example.com/", params=listing._Filters().to_dict()
    ).prepare().url == ("https://example.com/")


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-20T12:12:32Z",
        "2026-11-20T12:12:32.123456",
        "2026-11-20 12:12:32",
        "2026-11-20T12:12:32+02:00",
        "Fri, 20 Nov 2026 12:12:32 UTC",
    ],
)
def test_times_are_read_as_the_sdk_reads_them(written: str) -> None:
    read = TypeAdapter(listing._Instant).validate_python(written)
    assert read == parse_datetime(written)
    assert read.tzinfo is not None
