"""`celery-agents sandbox` as a real process."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from encord import EncordUserClient

from celery_agents.sandbox import SandboxServer
from celery_agents.sandbox.signatures import new_private_key

COMMAND = [sys.executable, "-c", "from celery_agents.cli.main import main; main()"]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False, **options
    )


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command with `--json`, and what it said when it was ready."""
    command = [*COMMAND, "sandbox", "--json", "--tasks", "5", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_session(tmp_path: Path, number: signal.Signals) -> None:
    key_file, env_file = tmp_path / "key", tmp_path / "env"
    options = ["--key-file", str(key_file), "--env-file", str(env_file), "--fault", "media.get:status=503"]
    with serving(*options) as (process, ready):
        client = EncordUserClient.create_with_ssh_private_key(
            ssh_private_key_path=key_file, domain=ready["url"]
        )
        project = client.get_project(ready["project_hash"])
        assert len(project.list_label_rows_v2()) == 5
        assert requests.get(f"{ready['url']}/sandbox/faults", timeout=10).json()[0]["call"] == "media.get"
        assert ready["pid"] == process.pid
        assert "admin_token" not in ready

        assert end(process, number) == (0, "")

    assert stat.S_IMODE(key_file.stat().st_mode) == stat.S_IMODE(env_file.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
    assert lines == {
        "ENCORD_DOMAIN": ready["url"],
        "ENCORD_SSH_KEY_FILE": str(key_file),
        "CELERY_AGENTS_PROJECT": ready["project_hash"],
    }


def test_an_interrupt_does_not_wait_for_calls_in_progress() -> None:
    with serving("--latency", "60") as (process, ready):
        import threading

        def call() -> None:
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{ready['url']}/v2/public/projects", timeout=30)

        caller = threading.Thread(target=call)
        caller.start()
        while requests.get(f"{ready['url']}/sandbox/report", timeout=10).json()["calls"] == {}:
            pass
        assert end(process, signal.SIGINT) == (0, "")
        caller.join()


def test_an_existing_key_is_let_in(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(new_private_key())
    key = key_file.read_text()
    with serving("--key-file", str(key_file)) as (_, ready):
        client = EncordUserClient.create_with_ssh_private_key(key, domain=ready["url"])
        assert client.get_project(ready["project_hash"]).title == "Sandbox project"
    assert key_file.read_text() == key


def test_for_people_it_says_what_to_export_and_never_the_key(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    command = [*COMMAND, "sandbox", "--tasks", "1", "--env-file", str(env_file)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Report:"):
                break
        process.send_signal(signal.SIGINT)
        said += process.stdout.read()

    assert process.returncode == 0
    assert "export ENCORD_DOMAIN=http://127.0.0.1:" in said
    assert "export CELERY_AGENTS_PROJECT=" in said
    assert str(env_file) in said
    assert "PRIVATE KEY" not in said
    assert "PRIVATE KEY" in env_file.read_text()


def test_a_port_in_use_is_one_sentence(sandbox: SandboxServer) -> None:
    result = run("sandbox", "--port", str(sandbox.port))
    assert result.returncode == 1
    assert result.stderr == f"Error: Cannot listen on 127.0.0.1:{sandbox.port}: Address already in use.\n"


def test_other_machines_need_a_flag() -> None:
    result = run("sandbox", "--host", "0.0.0.0")
    assert result.returncode == 2
    assert "--allow-remote" in result.stderr
    with serving("--host", "0.0.0.0", "--allow-remote") as (_, ready):
        assert ready["url"].startswith("http://127.0.0.1:")
        assert ready["admin_token"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--fault", "tasks.list:rate=0.5"], "says when but not what"),
        (["--fault", "status=nonsense"], "invalid literal"),
        (["--tasks", "many"], "not a valid integer"),
        (["--key-file", "/no/such/folder/key"], "Cannot use the key file"),
    ],
)
def test_mistakes_are_sentences(arguments: list[str], sentence: str) -> None:
    result = run("sandbox", *arguments)
    assert result.returncode != 0
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not a key")
    result = run("sandbox", "--key-file", str(tmp_path / "key"))
    assert (result.returncode, "no unencrypted ed25519 key" in result.stderr) == (1, True)


def test_a_missing_extra_is_one_sentence(tmp_path: Path) -> None:
    # A module that fails to import as one that is not installed does.
    (tmp_path / "uvicorn.py").write_text(
        "raise ModuleNotFoundError('No module named uvicorn', name='uvicorn')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    result = run("sandbox", env=environment)
    assert result.returncode == 1
    assert result.stderr == (
        "Error: The sandbox needs uvicorn, which is not installed: pip install 'celery-agents[sandbox]'\n"
    )


def test_help_teaches_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from celery_agents.cli.main import main\n"
        "main(['sandbox', '--help'], standalone_mode=False)\n"
        "assert not {'uvicorn', 'starlette', 'numpy', 'encord'} & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 0, result.stderr
    assert "--fault tasks.actions:status=503,rate=0.05" in result.stdout
    assert "celery -A app agents" in run("--help").stdout
