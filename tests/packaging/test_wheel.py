"""The wheel holds what it should, and works where nothing of the source tree is."""

from __future__ import annotations

import zipfile
from email.parser import Parser
from pathlib import Path

from celery_agents import __version__
from tests.packaging.conftest import ROOT, Installed

#: ``celery agents --help``, and then which modules that has imported.
HELP_AND_MODULES = """
import sys
from celery.bin.celery import celery
celery(["agents", "--help"], standalone_mode=False)
print(sorted(sys.modules))
"""


def test_it_holds_the_package_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "celery_agents").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {name for name in names if ".dist-info/" not in name} == sources
    assert "celery_agents/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_its_metadata_names_license_python_and_extras(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(wheel.read(name).decode())

    assert metadata["Name"] == "celery-agents"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) >= {"sandbox", "vision"}
    assert "five minutes" in str(metadata.get_payload()).lower()


def test_every_public_name_can_be_imported_from_outside_the_source_tree(installed: Installed) -> None:
    run = installed.run(
        "python", "-c", "from celery_agents import *; import celery_agents; print(celery_agents.__file__)"
    )

    assert run.returncode == 0, run.stdout
    assert Path(run.stdout.strip()).is_relative_to(installed.bin.parent)


def test_celery_has_the_agents_command(installed: Installed) -> None:
    run = installed.run("celery", "agents", "--help")

    assert run.returncode == 0, run.stdout
    for command in ("check", "stages", "enqueue", "status", "watch"):
        assert f"\n  {command}" in run.stdout


def test_celery_s_command_line_loads_no_sdk_for_it(installed: Installed) -> None:
    run = installed.run("python", "-c", HELP_AND_MODULES)

    assert "'celery_agents.cli'" in run.stdout, run.stdout
    assert "'encord'" not in run.stdout


def test_the_console_script_is_there(installed: Installed) -> None:
    assert installed.run("celery-agents", "--version").stdout.strip().endswith(__version__)
    assert "Serve a local Encord" in installed.run("celery-agents", "sandbox", "--help").stdout
