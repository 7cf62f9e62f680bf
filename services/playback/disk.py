"""The disk tier of an edge: segments that are worth it, within a hard budget, kept over restarts.

Each file is named by its content's SHA-256 and by what it is, so that no index can disagree with the files.
What is read is verified first, and a file that is not what its name says is removed. Objects never change, so
what is here serves on while the origin can't be reached.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.playback.errors import SegmentCorrupt
from services.playback.placement import Item, Placement
from services.runtime.clock import Clock
from services.runtime.logs import logger
from services.runtime.objects import ObjectStore

_UNFINISHED = ".part"
_FORGET_EVERY_S = 3600.0
_log = logger("playback.edge")


@dataclass(frozen=True, slots=True)
class _File:
    item: Item
    size_bytes: int
    sha256: str


class Edge:
    """Reads objects from the disk where they are, else from the origin; keeps those worth it. A `Source`."""

    def __init__(self, origin: ObjectStore, folder: Path, budget_bytes: int, clock: Clock) -> None:
        """Takes over what an earlier process left in `folder`, and removes what is beyond the budget."""
        self._origin = origin
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._placement = Placement()
        self._files: dict[Item, _File] = {}
        self._items: list[Item] = []
        self._forget_s = clock.monotonic() + _FORGET_EVERY_S
        self.kept_bytes = 0
        #: Reads answered by the disk and by the origin, in bytes.
        self.disk_bytes = self.origin_bytes = 0
        self._take_over()

    def asked(self, key: str) -> None:
        """Somebody plays that object."""
        now_s = self._clock.monotonic()
        self._placement.seen(item_of(key), now_s)
        if now_s >= self._forget_s:
            self._placement.forget(now_s)
            self._forget_s = now_s + _FORGET_EVERY_S

    async def read(self, key: str, sha256: bytes) -> bytes:
        """The object with that checksum. Raises `SegmentCorrupt`, and what the origin raises."""
        item = item_of(key)
        file = self._files.get(item)
        if file is not None:
            data = await asyncio.to_thread(self._verified, file, sha256.hex())
            if data is not None:
                self.disk_bytes += len(data)
                return data
            _log.error("a file of the edge is not what it was", key=key)
            self._forget(file)
        data = await self._origin.get(key, checked=False)  # against the catalogue's, below
        self.origin_bytes += len(data)
        if (await asyncio.to_thread(hashlib.sha256, data)).digest() != sha256:
            _log.error("the origin's answer is truncated or wrong", key=key, size_bytes=len(data))
            raise SegmentCorrupt()
        victims = self._room_for(item, len(data))
        if victims is not None:
            await self._keep(_File(item, len(data), sha256.hex()), data, victims)
        return data

    def _room_for(self, item: Item, size_bytes: int) -> Sequence[_File] | None:
        """What has to go for an object; None when it is worth less than that. Books both at once."""
        now_s, victims, free_bytes = (
            self._clock.monotonic(),
            list[_File](),
            self._budget_bytes - self.kept_bytes,
        )
        if item in self._files or size_bytes > self._budget_bytes:
            return None
        left = list(self._items)
        while free_bytes < size_bytes:
            victim = self._placement.victim(left, now_s)
            if not self._placement.displaces(item, victim, now_s):
                return None
            left.remove(victim)
            victims.append(self._files[victim])
            free_bytes += self._files[victim].size_bytes
        for file in victims:
            self._forget(file)
        self.kept_bytes += size_bytes
        return victims

    async def _keep(self, file: _File, data: bytes, victims: Sequence[_File]) -> None:
        try:
            await asyncio.to_thread(self._write, file, data, victims)
        except OSError as error:
            # A full or broken disk costs speed, not playback.
            _log.error("the edge's disk refuses", problem=str(error))
            self.kept_bytes -= file.size_bytes
            return
        self._files[file.item] = file
        self._items.append(file.item)

    def _write(self, file: _File, data: bytes, victims: Sequence[_File]) -> None:
        for victim in victims:
            self._path(victim).unlink(missing_ok=True)
        unfinished = self._path(file).with_name(self._path(file).name + _UNFINISHED)
        try:
            unfinished.write_bytes(data)
            unfinished.replace(self._path(file))
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    def _verified(self, file: _File, sha256: str) -> bytes | None:
        """What the file holds; None, and no file, when that is not what it should be."""
        try:
            data = self._path(file).read_bytes()
        except OSError:
            data = b""
        if file.sha256 == sha256 == hashlib.sha256(data).hexdigest():
            return data
        self._path(file).unlink(missing_ok=True)
        return None

    def _forget(self, file: _File) -> None:
        if self._files.pop(file.item, None) is not None:
            self._items.remove(file.item)
            self.kept_bytes -= file.size_bytes

    def _take_over(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(self._folder):
            file = _file_of(entry.name, entry.stat().st_size)
            if file is None or self.kept_bytes + file.size_bytes > self._budget_bytes:
                os.unlink(entry.path)
                continue
            self._files[file.item] = file
            self._items.append(file.item)
            self.kept_bytes += file.size_bytes

    def _path(self, file: _File) -> Path:
        return self._folder / f"{file.sha256}@{file.item.number}@{file.item.group.replace('/', '@')}"


def item_of(key: str) -> Item:
    """What an object is, by its key: `…/{title}/{job}/{rendition}/{number}-{attempt}.m4s`."""
    group, _, name = key.rpartition("/")
    digits = name.partition("-")[0].partition(".")[0]
    return Item(group, int(digits) if digits.isdecimal() else -1)


def _file_of(name: str, size_bytes: int) -> _File | None:
    if name.endswith(_UNFINISHED) or name.count("@") < 2:
        return None
    sha256, number, group = name.split("@", 2)
    return _File(Item(group.replace("@", "/"), int(number)), size_bytes, sha256)
