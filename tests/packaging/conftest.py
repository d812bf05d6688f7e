"""The wheel, built from this checkout and installed into a fresh virtual environment: what users get."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import LEADING

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it, used from outside the source tree."""

    wheel: Path
    bin: Path
    elsewhere: Path

    def run(
        self, *command: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; stdout and stderr as one text."""
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=cwd or self.elsewhere,
            env=self.environment() | (env or {}),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        """This process's environment, without what would lead back to the source tree or to a broker of somebody's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", *LEADING))
        }
        return {**kept, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    binaries = folder / "venv" / "bin"
    pip("--python", str(binaries / "python"), "install", f"{wheel}[vision,sandbox]")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(wheel, binaries, elsewhere)


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    run = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 0, run.stdout
