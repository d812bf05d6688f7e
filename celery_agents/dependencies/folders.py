"""Temporary folders that no process leaves behind, not even one that is killed.

A folder is locked by the process that made it for as long as it lives; the kernel takes the lock away with the process.
So a folder whose lock can be had is nobody's, and whoever makes the next one on the machine removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "celery-agents-files-"
#: Seconds between two looks for what others have left behind: a folder of temporary files may be a large one.
SWEEP_INTERVAL = 60.0

_swept: tuple[int, float] | None = None  #: by which process, and when


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is removed at the end of the ``with`` block, or by others after this process was killed."""
    _sweep_now_and_then()
    folder, lock = _make()
    try:
        yield folder
    finally:
        # Trouble with the clean-up comes after the work is done, and must not undo it.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            lock = _open(folder)
            with suppress(
                OSError
            ):  # a file system without locks: nobody can have it there, so nobody removes it
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Somebody may have swept it between these two lines.
            if _is_at(folder, lock):
                return folder, lock
            os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is_at(folder: Path, lock: int) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), folder.stat())
    except FileNotFoundError:
        return False


def _sweep_now_and_then() -> None:
    global _swept  # noqa: PLW0603  (one look for the whole process)
    now = time.monotonic()
    if _swept is None or _swept[0] != os.getpid() or now - _swept[1] > SWEEP_INTERVAL:
        _swept = os.getpid(), now
        sweep()


def sweep() -> None:
    """Remove the folders of processes that are gone, as far as they are this user's."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # a link, somebody else's, or removed meanwhile
            _remove_if_nobodys(folder)


def _remove_if_nobodys(folder: Path) -> None:
    lock = _open(folder)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its process lives
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
