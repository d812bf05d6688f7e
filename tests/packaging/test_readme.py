"""What the README says is done: its commands are run and its code is executed, where a reader would do it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_agents import QueueRunner
from celery_agents.sandbox import SandboxServer
from tests.packaging.conftest import ROOT, Installed
from tests.servers import new_valkey

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
CELERY = [command for command in COMMANDS if command.startswith("celery -A quickstart ")]


def block(text: str) -> str:
    """The one block of Python with this in it."""
    (found,) = [str(code) for code in PYTHON if text in code]
    return found


@dataclass(frozen=True)
class Folder:
    """The reader's folder, with what the README has them put there, and the services that it expects."""

    path: Path
    installed: Installed
    sandbox: SandboxServer
    env: dict[str, str]

    def run(self, command: str) -> str:
        """Run a command of the README; what it prints."""
        run = self.installed.run(*shlex.split(command), env=self.env, cwd=self.path)
        assert run.returncode == 0, f"{command}\n{run.stdout}"
        return run.stdout

    def run_python(self, *blocks: str) -> str:
        """Run blocks of the README as one program, on a project where nothing has been done."""
        self._start_again()
        (self.path / "reader.py").write_text("\n".join(blocks))
        return self.run("python reader.py")

    def _start_again(self) -> None:
        workflow = self.sandbox.state.project(self.sandbox.project_hash).workflow
        for task in workflow.tasks.values():
            workflow.relocate(task, workflow.start, status="NEW", by="test", at=self.sandbox.state.clock())


@pytest.fixture(scope="module")
def folder(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    path = tmp_path_factory.mktemp("reader") / "agents"
    path.mkdir()
    for command in COMMANDS:
        if command.startswith("cp "):
            for source in shlex.split(command)[1:-1]:
                shutil.copy(ROOT / source.removeprefix("path/to/celery-agents/"), path)
    with SandboxServer.start(tasks=30) as sandbox, new_valkey() as server:
        broker = f"redis://127.0.0.1:{server.port}"
        addresses = {"CELERY_BROKER_URL": f"{broker}/0", "CELERY_RESULT_BACKEND": f"{broker}/1"}
        yield Folder(path, installed, sandbox, sandbox.env() | addresses)


@pytest.fixture(scope="module")
def worker(folder: Folder) -> Iterator[None]:
    (command,) = [command for command in CELERY if command.endswith(" worker")]
    program, *arguments = shlex.split(command)
    with (folder.path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [folder.installed.bin / program, *arguments, "--concurrency=2"],
            cwd=folder.path,
            env=folder.installed.environment() | folder.env,
            stdout=log,
            stderr=log,
        )
    yield
    process.terminate()
    assert process.wait() == 0


def test_the_quickstart_is_the_file_that_the_reader_copies() -> None:
    assert block('app = Celery("quickstart")') == (ROOT / "examples" / "quickstart.py").read_text()


@pytest.mark.usefixtures("worker")
def test_the_celery_commands_work_in_the_order_of_the_page(folder: Folder) -> None:
    printed = {command: folder.run(command) for command in CELERY if not command.endswith(" worker")}

    assert "✓ project" in printed["celery -A quickstart agents check"]
    assert "quickstart.pre_label" in printed["celery -A quickstart agents stages"]
    assert "SUCCEEDED: 10 PROCEEDED" in printed["celery -A quickstart agents enqueue --limit 10 --wait"]
    assert re.search(r"Pre-label +20 +1 +agents", printed["celery -A quickstart agents enqueue"])


@pytest.mark.usefixtures("worker")
def test_enqueueing_from_python(folder: Folder) -> None:
    printed = folder.run_python(block("group = runner.enqueue("))

    assert printed.startswith("SUCCEEDED Counter({<Outcome.PROCEEDED: 'PROCEEDED'>: 30})")


@pytest.mark.usefixtures("worker")
def test_sending_specs_asking_and_calling_directly(folder: Folder) -> None:
    imports = "from quickstart import pre_label, runner\n"

    printed = folder.run_python(
        imports, block("message = pre_label.delay(specs)"), block("pre_label(specs[:1])"), "print(answer)"
    )

    assert printed.startswith("SUCCEEDED done=30 failed=0 total=30")
    assert len(re.findall(r"^\S+ PROCEEDED (?:labelled|nothing found) None$", printed, re.MULTILINE)) == 30
    assert '"outcome":"GONE"' in printed.splitlines()[-1]


def test_the_agent_that_asks_for_everything_can_be_declared(folder: Folder) -> None:
    printed = folder.run_python(
        "from quickstart import runner\n", block("autoretry_for"), "print(runner.stage_tasks)"
    )

    assert re.search(r"agents\.\w+\.Pre-label .*agents\.\w+\.Check ", printed)


def test_the_ledger_is_switched_on_by_one_line(folder: Folder) -> None:
    here = folder.env["CELERY_RESULT_BACKEND"].removesuffix("/1")
    switch = block("agents_ledger_url").replace("redis://localhost:6379", here)

    printed = folder.run_python("from quickstart import runner\n", switch, "print(runner.ledger.check())")

    assert "Valkey" in printed


def test_beat_sweeps_by_one_line(folder: Folder) -> None:
    printed = folder.run_python(
        "from quickstart import runner\n", block("beat_schedule"), "print(runner.app.conf.beat_schedule)"
    )

    assert "'schedule': 60" in printed


def test_the_example_on_top_can_be_declared() -> None:
    app = Celery("top", set_as_current=False)
    names: dict[str, Any] = {"runner": QueueRunner("00000000-0000-0000-0000-000000000000", app=app)}
    exec(block("from celery_agents.dependencies import").split("def scratch")[0], names)

    exec(block("add_boxes(label_row, model(frame))"), names)

    assert names["pre_label"].agent.__name__ == "pre_label"


def test_every_block_of_python_is_tried() -> None:
    tried = [
        "Celery(",
        "runner.enqueue(",
        "pre_label.delay(",
        "pre_label(specs[:1])",
        "autoretry_for",
        "add_boxes(",
        "agents_ledger_url",
        "beat_schedule",
    ]

    assert [code for code in PYTHON if not any(text in code for text in tried)] == []


def test_every_other_command_is_one_that_exists() -> None:
    known = {"mkdir", "python3", "cp", "export", "docker", "pip", "make", "celery"}
    assert {shlex.split(command)[0] for command in COMMANDS} <= known
    for command in COMMANDS:
        if command.startswith("make "):
            subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)
        if command.startswith("docker compose --env-file "):
            assert (ROOT / shlex.split(command)[3]).exists()


def test_links_to_files_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_page_names_every_status_and_outcome() -> None:
    from celery_agents import Outcome, Status

    for word in (*Status, *Outcome):
        assert f"| `{word.value}` |" in README
