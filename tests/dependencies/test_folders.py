"""Temporary folders go with their process, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from celery_agents.dependencies import folders
from celery_agents.dependencies.folders import PREFIX, temporary_folder

HOLD_ONE = """
from celery_agents.dependencies.folders import temporary_folder
with temporary_folder() as folder:
    (folder / "file").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of this test's own for temporary files, for this process and those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(folders, "_swept", None)
    return tmp_path


@contextmanager
def process_with_a_folder() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_it_is_removed_at_the_end_and_after_an_error(place: Path) -> None:
    with temporary_folder() as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").touch()
    assert list(place.iterdir()) == []
    with pytest.raises(ValueError, match="agent"), temporary_folder():
        raise ValueError("of the agent's")
    assert list(place.iterdir()) == []


def test_what_a_killed_process_leaves_is_removed_by_the_next(place: Path) -> None:
    with process_with_a_folder() as (killed, left), process_with_a_folder() as (_, in_use):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "file").exists()
        with temporary_folder() as mine:
            assert set(place.iterdir()) == {in_use, mine}
        assert (in_use / "file").exists()


def test_a_forked_process_looks_for_itself(place: Path) -> None:
    """A pool process that was killed is replaced by a fork of a process that has looked before."""
    with temporary_folder():
        pass
    with process_with_a_folder() as (killed, left):
        killed.kill()
        killed.wait()
        child = os.fork()
        if child == 0:
            with temporary_folder():
                os._exit(0 if not left.exists() else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_only_ones_own_folders_are_removed(place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (place / f"{PREFIX}link").symlink_to(elsewhere, target_is_directory=True)
    (place / f"{PREFIX}file").touch()
    nobodys = place / f"{PREFIX}nobodys"
    nobodys.mkdir()
    folders.sweep()
    assert not nobodys.exists()
    assert (elsewhere / "file").exists()
    assert (place / f"{PREFIX}link").is_symlink()
    assert (place / f"{PREFIX}file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could remove what is another user's")
def test_root_removes_no_other_user_s_folder(place: Path) -> None:
    theirs = place / f"{PREFIX}theirs"
    theirs.mkdir()
    os.chown(theirs, 65_534, 65_534)
    folders.sweep()
    assert theirs.exists()


def test_it_is_looked_for_now_and_then_only(place: Path) -> None:
    with temporary_folder():
        pass
    nobodys = place / f"{PREFIX}nobodys"
    nobodys.mkdir()
    with temporary_folder():
        assert nobodys.exists()
