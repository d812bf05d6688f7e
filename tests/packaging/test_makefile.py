"""What ``make`` says to somebody whose machine lacks something, and that it sets up once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing was set up, with nothing on PATH but what make needs."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for program in ("sh", "touch", "rm", "grep", "sed", "awk", "find"):
        (tmp_path / "bin" / program).symlink_to(str(shutil.which(program)))
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # MAKEFLAGS and friends of the make that runs these tests are not for this one.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))
    }
    return subprocess.run(
        [str(shutil.which("make")), *arguments],
        cwd=checkout,
        env={**kept, "PATH": str(checkout / "bin")},
        check=False,
        capture_output=True,
        text=True,
    )


def install_python(checkout: Path, name: str, answer: str) -> None:
    """Put a program called *name* on PATH which does *answer*."""
    program = checkout / "bin" / name
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)


def test_help_is_the_default_and_lists_every_chore() -> None:
    run = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)

    assert re.findall(r"^  make (\w+)", run.stdout, re.MULTILINE) == phony.split()


def test_without_any_python_it_says_what_is_needed(checkout: Path) -> None:
    run = make(checkout, "demo")

    assert run.returncode != 0
    assert "celery-agents needs Python 3.11 or newer, which no python3 on PATH is." in run.stderr
    assert not (checkout / ".venv").exists()


def test_an_interpreter_that_was_named_and_is_too_old_is_named(checkout: Path) -> None:
    install_python(checkout, "python3.9", "exit 1  # to whether it is new enough")

    run = make(checkout, "demo", "PYTHON=python3.9")

    assert "needs Python 3.11 or newer, which python3.9 is not." in run.stderr


def test_a_python_without_venv_is_told_from_one_that_is_too_old(checkout: Path) -> None:
    install_python(checkout, "python3", 'case "$2" in *ensurepip*) exit 1;; esac')

    run = make(checkout, "demo")

    assert run.returncode != 0
    assert "python3 cannot make virtual environments: install its venv module" in run.stderr


def test_a_newer_python_is_found_behind_an_old_one(checkout: Path) -> None:
    install_python(checkout, "python3", "exit 1")
    install_python(checkout, "python3.13", f'exec {sys.executable} "$@"')

    run = make(checkout, ".venv/bin/python")

    assert run.returncode == 0, run.stderr
    assert (checkout / ".venv" / "bin" / "python").exists()


def test_it_sets_up_once_and_again_when_the_requirements_change(checkout: Path) -> None:
    # Given an environment that was set up for development
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").touch()
    for stamp in (".ready-dev", ".ready-demo"):
        (checkout / ".venv" / stamp).touch()
    assert "pip install" not in make(checkout, "--dry-run", "test").stdout
    assert "pip install" not in make(checkout, "--dry-run", "demo").stdout

    # When the requirements change
    stamp_time = (checkout / ".venv" / ".ready-dev").stat().st_mtime
    os.utime(checkout / "pyproject.toml", (stamp_time + 1, stamp_time + 1))

    # Then it is set up again
    assert "--group dev" in make(checkout, "--dry-run", "test").stdout
    assert "pip install" in make(checkout, "--dry-run", "demo").stdout


def test_ci_runs_make_test() -> None:
    run = ROOT / ".ci" / "run"

    assert os.access(run, os.X_OK)
    assert run.read_text().rstrip().endswith("export CI=true\nexec make test")
