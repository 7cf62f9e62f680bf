"""Folders that belong to a living process: each has a lock beside it, which the kernel frees with its holder.

A process id would not do: it is given to another after a while, and means nothing in another container.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from services.runtime.ids import new_id

_LOCK = ".lock"
#: What all folders begin with that Kino makes in the system's temporary folder.
PREFIX = "kino-"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A folder held by this process."""

    path: Path
    #: The descriptor that holds the lock; children do not inherit it.
    handle: int

    def release(self) -> None:
        """Remove the folder; what can't be removed is left for whoever collects."""
        _remove(self.path)
        os.close(self.handle)


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A folder as others see it."""

    path: Path
    #: Whether its holder lives.
    alive: bool
    #: What the holder said of itself.
    note: Mapping[str, str]


def claim(parent: Path, name: str = "", note: Mapping[str, str] | None = None) -> Claim:
    """A new folder in `parent` whose name begins with `name`; `note` says whose it is, to those who look."""
    while True:
        path = parent / f"{name}{new_id()}"
        lock = Path(f"{path}{_LOCK}")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Not there: a collector took it for a dead one's between the two calls above.
            lock.stat()
            os.write(handle, json.dumps(note or {}).encode())
            path.mkdir(mode=0o700)
            return Claim(path=path, handle=handle)
        except FileNotFoundError:
            os.close(handle)
        except BaseException:
            lock.unlink(missing_ok=True)
            os.close(handle)
            raise


def claimed(parent: Path, prefix: str = "") -> list[Claimed]:
    """Whose folders in `parent` are held, and which are orphans; nothing is changed."""
    found = []
    for lock in sorted(parent.glob(f"{prefix}*{_LOCK}")):
        with _open(lock) as handle:
            if handle is not None:
                said = os.pread(handle, 4096, 0)
                found.append(Claimed(path=_folder(lock), alive=not _freed(handle), note=_note(said)))
    return found


def collect(parent: Path, prefix: str = "") -> Iterator[Path]:
    """Each orphan of this user in `parent`, which is removed once the next is asked for."""
    for lock in sorted(parent.glob(f"{prefix}*{_LOCK}")):
        with _open(lock) as handle:
            if handle is not None and os.fstat(handle).st_uid == os.geteuid() and _freed(handle):
                if _folder(lock).is_dir():
                    yield _folder(lock)
                _remove(_folder(lock))


@contextmanager
def temporary(name: str) -> Iterator[Path]:
    """A folder in the system's temporary one that goes with the context, or with the next after a crash."""
    parent = Path(tempfile.gettempdir())
    list(collect(parent, f"{PREFIX}{name}-"))
    held = claim(parent, f"{PREFIX}{name}-", {"worker": f"kino {name}"})
    try:
        yield held.path
    finally:
        held.release()


def _folder(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(_LOCK))


def _note(said: bytes) -> Mapping[str, str]:
    with suppress(ValueError):
        note = json.loads(said)
        if isinstance(note, dict):
            return {str(key): str(value) for key, value in note.items()}
    return {}


@contextmanager
def _open(lock: Path) -> Iterator[int | None]:
    """The lock's file; None where it is gone or may not be opened."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _freed(handle: int) -> bool:
    """Whether nobody held it; now we do."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path) -> None:
    """The folder, and then the lock that would lead a collector to what is left."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        Path(f"{folder}{_LOCK}").unlink(missing_ok=True)
