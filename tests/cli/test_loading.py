"""Celery loads this command line at every invocation, so it must cost nothing until it is used."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from celery_agents.cli import COMMANDS, agents
from tests.cli.conftest import REPOSITORY

WATCHED = """
import sys
sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
sys.argv = ["celery", "-A", "tests.cli.light_app", "agents", "--help"]
from celery.__main__ import main
try:
    main()
finally:
    print("SOCKETS", [event for event in sockets if event != "socket.gethostname"])
    # Not redis and the like: Flower, which is another plugin, loads them.
    ours = {"celery_agents.messages", "celery_agents.worker.startup", "celery_agents.producer.beat"}
    print("LOADED", sorted({"encord", "pydantic", *ours} & sys.modules.keys()))
"""


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=dict(os.environ),
        text=True,
        capture_output=True,
        check=True,
    ).stdout


def test_help_opens_no_socket_and_loads_neither_sdk_nor_models() -> None:
    said = run(WATCHED)
    assert "check" in said
    assert "SOCKETS []" in said
    assert "LOADED []" in said


def test_the_plugin_itself_imports_click_and_nothing_else_of_weight() -> None:
    heavy = "{'encord', 'pydantic', 'rich', 'redis', 'celery', 'kombu', 'requests'}"
    said = run(f"import sys; import celery_agents.cli; print('LOADED', sorted({heavy} & sys.modules.keys()))")
    assert said == "LOADED []\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_teaches(name: str) -> None:
    context = click.Context(agents, info_name="agents")
    command = agents.get_command(context, name)
    assert command is not None
    taught = command.get_help(click.Context(command, parent=context, info_name=name))
    assert "Examples:" in taught
    assert f"celery -A app agents {name}" in taught
    assert "Exit codes:" in taught
    assert "--json" in taught


def test_an_unknown_command_is_refused() -> None:
    assert agents.get_command(click.Context(agents), "chek") is None


def test_preload_options_reach_their_signal() -> None:
    # Celery 5.6 adds such options to every command and passes them to its callback, which must take them.
    program = """
from celery import Celery, signals
from click import Option
import sys
app = Celery("app", broker="memory://")
app.user_options["preload"].add(Option(["--flavour"], default="plain"))
signals.user_preload_options.connect(lambda options, **_: print("OPTIONS", options["flavour"]), weak=False)
from celery.bin.celery import celery
celery.main(["agents", "--flavour", "sweet", "stages"], standalone_mode=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=dict(os.environ),
        text=True,
        capture_output=True,
        check=False,
    )
    assert "OPTIONS sweet" in done.stdout
