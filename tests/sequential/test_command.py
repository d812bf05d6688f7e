"""``runner.run()`` as a program: options, exit codes, signals, and what it shows."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celery_agents.sandbox import Fault, Kind, Project, SandboxServer
from tests.worker.conftest import DEADLINE, ROOT, wait_until

from .conftest import DONE, STAGE

PROGRAM = [sys.executable, "-m", "tests.sequential.program"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(sandbox: SandboxServer) -> Iterator[Start]:
    """Start the program; nothing of it is left behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **env: str) -> subprocess.Popen[str]:
        project = ["--project-hash", sandbox.project_hash]
        program = subprocess.Popen(
            [*PROGRAM, *project, *arguments],
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(program)
        return program

    yield start
    for program in started:
        if program.poll() is None:
            program.kill()
        program.communicate()


def test_everything_is_done(start: Start, project: Project) -> None:
    program = start("--task-batch-size", "5")
    out, err = program.communicate()
    assert (program.returncode, err) == (0, "")
    assert out.split()[:5] == ["stage", "PROCEEDED", "HELD", "GONE", "FAILED"]
    assert out.split()[-5:] == [STAGE, "12", "0", "0", "0"]
    assert project.count_at(DONE) == 12


def test_something_failed(start: Start, project: Project) -> None:
    program = start("--num-retries", "1", FAIL="video")
    out, err = program.communicate()
    left = project.tasks_at(STAGE)
    assert program.returncode == 1
    assert out.split()[-4:] == [str(12 - len(left)), "0", "0", str(len(left))]
    assert f"\nFAILED {left[0].data_title}: ValueError: not [{left[0].data_title}]\n" in err
    assert "Traceback" in err
    assert {task.data_title[:5] for task in left} == {"video"}


@pytest.mark.parametrize(
    ("arguments", "env", "code", "sentence"),
    [
        ((), {"STAGE": "Pre-lable"}, 1, "Error: Project {project} has no agent stage 'Pre-lable'; did you mean 'Pre-label'?"),
        ((), {"ENCORD_SSH_KEY": ""}, 1, "Error: No Encord key: set ENCORD_SSH_KEY_FILE to the path"),
        ((), {"ENCORD_DOMAIN": "http://127.0.0.1:9"}, 1, "Error: Encord does not answer at http://127.0.0.1:9"),
        (("--num-retries", "many"), {}, 2, "Invalid value for '--num-retries'"),
        (("--max-tasks-per-stage", "0"), {}, 2, "Invalid value for '--max-tasks-per-stage'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(
    start: Start,
    sandbox: SandboxServer,
    arguments: tuple[str, ...],
    env: dict[str, str],
    code: int,
    sentence: str,
) -> None:
    program = start(*arguments, **env)
    out, err = program.communicate()
    assert (program.returncode, out) == (code, "")
    assert sentence.format(project=sandbox.project_hash) in err
    assert "Traceback" not in err


def test_its_options_are_those_of_encord_agents() -> None:
    run = subprocess.run([*PROGRAM, "--help"], cwd=ROOT, check=True, capture_output=True, text=True)
    for option in ("refresh-every", "num-retries", "task-batch-size", "project-hash", "max-tasks-per-stage"):
        assert f"--{option} " in run.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_it_finishes_the_one_it_is_on_and_commits(
    start: Start, project: Project, sandbox: SandboxServer, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    # Given a program whose agent is at its fourth agent task of one batch
    there = tmp_path / "there"
    there.touch()
    program = start(WAIT_AT="4", WAIT_WHILE=str(there))
    assert program.stderr is not None
    assert program.stderr.readline() == "waiting\n"

    # When it is told to stop, and the agent comes to its end
    program.send_signal(number)
    assert sandbox.audit.moves() == {}
    there.unlink()
    out, err = program.communicate()

    # Then it has committed what it was on and what it had done before, and begun no other
    assert (program.returncode, err) == (code, "")
    assert out.split()[-4:] == ["4", "0", "0", "0"]
    assert (project.count_at(DONE), project.count_at(STAGE)) == (4, 8)


def test_told_twice_it_stops_at_once(start: Start, sandbox: SandboxServer, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    program = start(WAIT_AT="4", WAIT_WHILE=str(there))
    assert program.stderr is not None
    assert program.stderr.readline() == "waiting\n"

    program.send_signal(signal.SIGINT)
    wait_until("it sleeps again", lambda: _sleeps(program.pid))
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=DEADLINE)

    assert program.returncode == 130
    assert sandbox.audit.moves() == {}


def _sleeps(pid: int) -> bool:
    """Whether a process has taken in the signals that were sent to it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return (
        "SigPnd:\t0000000000000000" in status
        and "ShdPnd:\t0000000000000000" in status
        and "sleeping" in status
    )


def test_it_goes_on_looking_and_outlives_encord_being_away(
    start: Start, sandbox: SandboxServer, project: Project
) -> None:
    program = start("--refresh-every", "0.05", "--num-retries", "0")
    wait_until("all are done", lambda: project.count_at(DONE) == 12)

    sandbox.faults.add(Fault(call="tasks.list", times=2, status=503))
    listed = sandbox.calls["tasks.list"]
    wait_until("it goes on looking", lambda: sandbox.calls["tasks.list"] > listed + 3)
    dataset = sandbox.state.add_dataset("Later")
    sandbox.state.add_data_units(dataset, [Kind.IMAGE] * 3)
    project.add_dataset(dataset)
    wait_until("what came later is done too", lambda: project.count_at(DONE) == 15)

    program.send_signal(signal.SIGINT)
    out, err = program.communicate()
    assert program.returncode == 130
    assert out.split()[-4:] == ["15", "0", "0", "0"]
    assert "The pass broke off and the next one goes on: UnknownException" in err
    assert set(Counter(sandbox.audit.moves()).values()) == {1}


def test_on_a_terminal_it_shows_a_bar_and_what_failed(sandbox: SandboxServer) -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*PROGRAM, "--project-hash", sandbox.project_hash, "--num-retries", "0"],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "FAIL": "video", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b"".join(_read_all(ours)).decode()
    program.communicate()
    assert program.returncode == 1
    assert STAGE in shown
    assert "12 done, " in shown
    assert "ValueError: not [video" in shown


def _read_all(terminal: int) -> Iterator[bytes]:
    try:
        while piece := os.read(terminal, 1 << 16):
            yield piece
    except OSError:  # how Linux tells that the other end was closed
        return
    finally:
        os.close(terminal)
