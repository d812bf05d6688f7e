from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from encord.workflow.stages.agent import AgentTaskStatus

from celery_agents.errors import SetupError
from celery_agents.producer.filters import TASK_STATUSES, TaskFilters

HASH = UUID(int=5)


def test_no_filters_are_one_request_for_everything() -> None:
    assert list(TaskFilters().requests()) == [{}]


def test_one_value_or_several() -> None:
    filters = TaskFilters(
        status="new", data_title="street", data_hash=str(HASH), dataset_hash=[HASH], assignee="a@example.com"
    )

    assert list(filters.requests()) == [
        {
            "status": ["NEW"],
            "data_title": "street",
            "data_hash": [HASH],
            "dataset_hash": [HASH],
            "assignee": ["a@example.com"],
        }
    ]


@pytest.mark.parametrize("name", ["status", "data_hash", "dataset_hash", "assignee"])
def test_an_empty_list_is_nothing_and_not_the_whole_stage(name: str) -> None:
    assert list(TaskFilters(**{name: []}).requests()) == []  # type: ignore[arg-type]


def test_many_data_hashes_become_several_requests_with_each_once() -> None:
    hashes = [uuid4() for _ in range(250)]

    requests = list(TaskFilters(data_hash=[*hashes, *map(str, hashes)], data_title="street").requests())

    assert [len(request["data_hash"]) for request in requests] == [100, 100, 50]
    assert [each for request in requests for each in request["data_hash"]] == hashes
    assert {request["data_title"] for request in requests} == {"street"}


def test_what_else_travels_in_the_url_leaves_less_room_for_data_hashes() -> None:
    hashes, assignees = [uuid4() for _ in range(100)], [f"{number}@example.com" for number in range(40)]

    requests = list(TaskFilters(data_hash=hashes, assignee=assignees).requests())

    assert [len(request["data_hash"]) for request in requests] == [60, 40]


def test_more_than_fits_into_a_url_is_refused() -> None:
    with pytest.raises(SetupError, match="at most 50 datasets and assignees"):
        list(TaskFilters(dataset_hash=[uuid4() for _ in range(51)]).requests())


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ({"status": ["NEW", "OPEN"]}, "'OPEN' is none of NEW, ASSIGNED"),
        ({"data_hash": "abc"}, "'abc' is not a UUID"),
        ({"dataset_hash": ["abc"]}, "'abc' is not a UUID"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(filters: dict[str, str], sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        TaskFilters(**filters)


def test_the_statuses_are_those_of_the_sdk() -> None:
    assert set(TASK_STATUSES) == {status.value for status in AgentTaskStatus} - {
        AgentTaskStatus.UNKNOWN.value
    }
    assert TaskFilters(status=AgentTaskStatus.NEW).status == ["NEW"]
