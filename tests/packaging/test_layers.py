"""The contracts of import-linter hold, and each of them can fail: one forbidden import at a time in a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "celery_agents"
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

#: Contract -> module and the import in it that the contract forbids.
FORBIDDEN = [
    ("layers", "status.py", "import celery_agents.runner"),
    ("layers", "executor.py", "import celery_agents.gateway.project"),
    ("layers", "a_module_without_a_place.py", ""),
    ("acyclic", "dependencies/markers.py", "import celery_agents.dependencies.plan"),
    ("encord", "executor.py", "import encord.project"),
    ("celery", "executor.py", "import celery"),
    ("celery", "messages.py", "import kombu"),
    ("redis", "results.py", "import redis"),
    ("sandbox-alone", "sandbox/state.py", "import celery_agents.errors"),
    ("sandbox-alone", "sandbox/wire.py", "import encord"),
    ("sandbox-unused", "runner.py", "import celery_agents.sandbox.state"),
]


def lint_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_all_contracts_hold() -> None:
    run = lint_imports(ROOT)

    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(("contract", "module", "forbidden"), FORBIDDEN)
def test_a_contract_notices_what_it_is_there_for(
    tmp_path: Path, contract: str, module: str, forbidden: str
) -> None:
    # Given a copy of the package with one more import
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "celery_agents", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "celery_agents" / module).open("a") as file:
        file.write(f"\n{forbidden}\n")

    run = lint_imports(tmp_path, "--contract", contract)

    assert run.returncode == 1, run.stdout
    assert f"{CONTRACTS[contract]['name']} BROKEN" in run.stdout


def test_every_contract_is_tried() -> None:
    assert {contract for contract, _, _ in FORBIDDEN} == set(CONTRACTS)


def test_the_sandbox_is_kept_from_every_other_module() -> None:
    names = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    kept_from = {
        name.removeprefix("celery_agents.") for name in CONTRACTS["sandbox-alone"]["forbidden_modules"]
    }

    assert names - {"__init__", "sandbox", "_version"} <= kept_from
