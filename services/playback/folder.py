"""The folder of an edge: segments, each named by its content and by what it is, and what the node remembers.

No index can disagree with the files, because there is none. Files with other names belong to somebody else
and stay as they are. Everything is written beside its place and moved there when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.playback.placement import Item
from services.runtime.logs import logger

_UNFINISHED = ".part"
_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})@(?P<number>-1|\d{1,9})@(?P<group>.+)")
#: What the node remembers besides segments; no segment has such a name.
_STATE = re.compile(r"edge-[a-z0-9@.-]+")
_DAMAGED = ".damaged"
_log = logger("playback.edge")


@dataclass(frozen=True, slots=True)
class File:
    """A segment in the folder."""

    item: Item
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name in the folder."""
        return f"{self.sha256}@{self.item.number}@{self.item.group.replace('/', '@')}"


class Folder:
    """The files; every method blocks on the disk and raises `OSError`, unless it says otherwise."""

    def __init__(self, path: Path) -> None:
        """Makes the folder where there is none."""
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def segments(self) -> list[File]:
        """What an earlier process kept; what it did not finish goes."""
        found, strange = [], 0
        for entry in os.scandir(self._path):
            if _is_ours(entry.name.removesuffix(_UNFINISHED)) and entry.name.endswith(_UNFINISHED):
                os.unlink(entry.path)
            elif entry.is_file(follow_symlinks=False) and (file := _file_of(entry)):
                found.append(file)
            else:
                strange += not _STATE.fullmatch(entry.name)
        if strange:
            _log.warning("files in the edge's folder are not its own and stay", count=strange)
        return found

    def keep(self, file: File, data: bytes) -> None:
        """Write a segment, whole or not at all."""
        self._write(file.name, [data])

    def read(self, file: File, sha256: str) -> bytes | None:
        """What the file holds; None, and no file, when that is not what it should be. Raises nothing."""
        try:
            data = (self._path / file.name).read_bytes()
        except OSError:
            data = b""
        if file.sha256 == sha256 == hashlib.sha256(data).hexdigest():
            return data
        try:
            self.drop(file)
        except OSError as error:
            _log.error("a damaged file of the edge can't be removed", problem=str(error))
        return None

    def part(self, file: File, start: int, length: int) -> bytes:
        """Some bytes of a segment as they are there; none where they can't be read. Raises nothing."""
        try:
            with open(self._path / file.name, "rb") as segment:
                segment.seek(start)
                return segment.read(length)
        except OSError:
            return b""

    def drop(self, file: File) -> None:
        """Remove a segment."""
        (self._path / file.name).unlink(missing_ok=True)

    def remember(self, name: str, data: bytes, time: datetime) -> None:
        """Write a state, `edge-…`, with its checksum before it and this as its time."""
        self._write(name, [hashlib.sha256(data).hexdigest().encode(), b"\n", data])
        os.utime(self._path / name, (time.timestamp(), time.timestamp()))

    def states(self, prefix: str) -> list[tuple[str, datetime]]:
        """The states whose names begin so, and their times."""
        return [
            (entry.name, datetime.fromtimestamp(entry.stat().st_mtime, UTC))
            for entry in os.scandir(self._path)
            if entry.name.startswith(prefix) and _STATE.fullmatch(entry.name)
        ]

    def forget(self, name: str) -> None:
        """Remove a state."""
        (self._path / name).unlink(missing_ok=True)

    def remembered(self, name: str, after: datetime | None = None) -> bytes | None:
        """A state as it was written, unless before `after`; None where there is none.

        A damaged one is told and put aside.
        """
        path = self._path / name
        try:
            if after is not None and path.stat().st_mtime < after.timestamp():
                return None
            sha256, _, data = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        if sha256.decode("ascii", "replace") == hashlib.sha256(data).hexdigest():
            return data
        path.replace(path.with_name(name + _DAMAGED))
        _log.error("what the edge remembers is damaged and was put aside", file=str(path) + _DAMAGED)
        return None

    def _write(self, name: str, pieces: list[bytes]) -> None:
        unfinished = self._path / (name + _UNFINISHED)
        try:
            with open(unfinished, "wb") as out:
                out.writelines(pieces)
            unfinished.replace(self._path / name)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def _is_ours(name: str) -> bool:
    return bool(_NAME.fullmatch(name) or _STATE.fullmatch(name))


def _file_of(entry: os.DirEntry[str]) -> File | None:
    match = _NAME.fullmatch(entry.name)
    if match is None:
        return None
    item = Item(match["group"].replace("@", "/"), int(match["number"]))
    return File(item, entry.stat().st_size, match["sha256"])
