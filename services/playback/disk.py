"""The disk tier of an edge: segments that are worth it, within a hard budget, kept over restarts.

What is read is verified first, and a file that is not what its name says is removed. Objects never change, so
what is here serves on while the origin can't be reached. What was played is remembered over a restart too.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.playback.errors import SegmentCorrupt
from services.playback.folder import File, Folder
from services.playback.kept import Kept
from services.playback.placement import INIT, Item, Placement
from services.runtime.clock import Clock
from services.runtime.logs import logger
from services.runtime.objects import ObjectStore

_FORGET_EVERY_S = 3600.0
#: What was played since, a crash may forget.
SAVE_EVERY_S = 60.0
_PLAYS = "edge-plays.json"
_log = logger("playback.edge")


class Verdict(enum.Enum):
    """Whether an object gets a place."""

    KEPT = "kept"
    HERE = "here already"
    NOT_WORTH = "worth less than what it would displace"
    TOO_BIG = "larger than the budget"
    DISK_FAILED = "the disk refused"


@dataclass(frozen=True, kw_only=True)
class _Room:
    verdict: Verdict
    #: What has to go for it, when it is kept.
    victims: Sequence[File] = ()


class Edge:
    """Reads objects from the disk where they are, else from the origin; keeps those worth it. A `Source`."""

    def __init__(self, origin: ObjectStore, folder: Path, budget_bytes: int, clock: Clock) -> None:
        """Takes over what an earlier process left in `folder`, and removes what is beyond the budget."""
        self._origin = origin
        self._folder = Folder(folder)
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._placement = Placement()
        self._kept: Kept[File] = Kept()
        self._writing: dict[Item, File] = {}
        self._offered: set[asyncio.Task[Verdict]] = set()
        self._forget_s = self._now_s() + _FORGET_EVERY_S
        #: Reads answered by the disk and by the origin, in bytes.
        self.disk_bytes = self.origin_bytes = 0
        self._recall()
        self._take_over()

    @property
    def kept_bytes(self) -> int:
        """What is on the disk, or being written; never more than the budget."""
        return self._kept.bytes + sum(file.size_bytes for file in self._writing.values())

    def asked(self, key: str) -> None:
        """Somebody plays that object."""
        now_s = self._now_s()
        self._placement.seen(item_of(key), now_s)
        if now_s >= self._forget_s:
            self._placement.forget(now_s)
            self._forget_s = now_s + _FORGET_EVERY_S

    async def read(self, key: str, sha256: bytes) -> bytes:
        """The object with that checksum. Raises `SegmentCorrupt`, and what the origin raises."""
        item = item_of(key)
        file = self._kept.get(item)
        if file is not None:
            data = await asyncio.to_thread(self._folder.read, file, sha256.hex())
            if data is not None:
                self.disk_bytes += len(data)
                return data
            if item in self._kept:  # else it was displaced meanwhile
                _log.error("a file of the edge is not what it was", key=key)
                self._kept.remove(item)
        data = await self._origin.get(key, checked=False)  # against the catalogue's, below
        self.origin_bytes += len(data)
        if (await asyncio.to_thread(hashlib.sha256, data)).digest() != sha256:
            _log.error("the origin's answer is truncated or wrong", key=key, size_bytes=len(data))
            raise SegmentCorrupt()
        await self._keep(File(item, len(data), sha256.hex()), lambda: data)
        return data

    async def part(self, key: str, start: int, length: int) -> bytes:
        """Some bytes of an object that was read before, not verified. Raises what the origin raises."""
        file = self._kept.get(item_of(key))
        if file is not None:
            data = await asyncio.to_thread(self._folder.part, file, start, length)
            if data:
                self.disk_bytes += len(data)
                return data
        data = await self._origin.get(key, start, length)
        self.origin_bytes += len(data)
        return data

    def offer(self, key: str, size_bytes: int, sha256: bytes, data: Callable[[], bytes]) -> None:
        """Keep an object that was asked for and is in memory, if it is worth it by now.

        Else what is hot before it is worth a place would be in memory alone, and gone with the process.
        """
        item = item_of(key)
        if item not in self._kept and item not in self._writing:
            task = asyncio.create_task(self._keep(File(item, size_bytes, sha256.hex()), data))
            self._offered.add(task)
            task.add_done_callback(self._offered.discard)

    async def save(self) -> None:
        """Remember what was played."""
        try:
            await asyncio.to_thread(self._remember)
        except OSError as error:
            _log.error("what was played can't be remembered", problem=str(error))

    async def keep_saving(self) -> None:
        """Remember it now and then, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            await self.save()

    async def close(self) -> None:
        """Wait for what is being written, and remember what was played."""
        await asyncio.gather(*self._offered, return_exceptions=True)
        await self.save()

    async def _keep(self, file: File, data: Callable[[], bytes]) -> Verdict:
        room = self._room_for(file)
        if room.verdict is not Verdict.KEPT:
            return room.verdict
        try:
            await asyncio.to_thread(self._write, file, data, room.victims)
        except OSError as error:
            # A full or broken disk costs speed, not playback.
            _log.error("the edge's disk refuses", problem=str(error))
            return Verdict.DISK_FAILED
        finally:
            del self._writing[file.item]
        self._kept.add(file)
        return Verdict.KEPT

    def _room_for(self, file: File) -> _Room:
        """Whether an object is worth its room, and what has to go for it. Books both at once."""
        if file.item in self._kept or file.item in self._writing:
            return _Room(verdict=Verdict.HERE)
        if file.size_bytes > self._budget_bytes:
            return _Room(verdict=Verdict.TOO_BIG)
        now_s, victims = self._now_s(), list[File]()
        while self.kept_bytes + file.size_bytes > self._budget_bytes:
            loose = self._kept.loose
            victim = self._placement.victim(loose, now_s) if loose else None
            if victim is None or not self._placement.displaces(file.item, victim, now_s):
                self._kept.restore(victims)
                return _Room(verdict=Verdict.NOT_WORTH)
            victims.append(self._kept.remove(victim))
        self._writing[file.item] = file
        return _Room(verdict=Verdict.KEPT, victims=victims)

    def _write(self, file: File, data: Callable[[], bytes], victims: Sequence[File]) -> None:
        for victim in victims:
            self._folder.drop(victim)
        self._folder.keep(file, data())

    def _take_over(self) -> None:
        """What is worth most first, and of a rendition the init segment first."""
        now_s = self._now_s()

        def worth(file: File) -> tuple[float, bool]:
            return self._placement.worth(file.item, now_s), file.item.number == INIT

        for file in sorted(self._folder.segments(), key=worth, reverse=True):
            if file.item in self._kept or self._kept.bytes + file.size_bytes > self._budget_bytes:
                self._folder.drop(file)
            else:
                self._kept.add(file)

    def _remember(self) -> None:
        self._folder.remember(_PLAYS, json.dumps(self._placement.counts()).encode())

    def _recall(self) -> None:
        data = self._folder.remembered(_PLAYS)
        if data is None:
            return
        try:
            self._placement.restore(json.loads(data))
        except (TypeError, ValueError):
            _log.warning("what another version remembered of plays is not understood")
        self._placement.forget(self._now_s())

    def _now_s(self) -> float:
        return self._clock.now().timestamp()


def item_of(key: str) -> Item:
    """What an object is, by its key: `…/{title}/{job}/{rendition}/{number}-{attempt}.m4s`."""
    group, _, name = key.rpartition("/")
    digits = name.partition("-")[0].partition(".")[0]
    return Item(group, int(digits) if digits.isdecimal() else INIT)
