"""The peers' virtual environments: each its own, made when it is needed, from a file of pinned requirements."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

_HERE = Path(__file__).parent
_MADE = _HERE.parents[1] / ".bench"


def python_of(peer: str) -> str:
    """Return the interpreter of a peer's environment, which is made anew where its requirements have changed."""
    wanted = (_HERE / f"{peer}.txt").read_text()
    folder = _MADE / peer
    python, stamp = folder / "bin" / "python", folder / "made-from.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {peer} into .bench/{peer}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*install, "--requirement", str(_HERE / f"{peer}.txt")], check=True)
        stamp.write_text(wanted)
    return str(python)
