"""The disk tier of an edge: segments that are worth it, within a hard budget, kept over restarts.

What is read is verified first, and a file that is not what its name says is removed. Objects never change, so
what is here serves on while the origin can't be reached. What was played is remembered over a restart too.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from services.playback.errors import SegmentCorrupt
from services.playback.folder import File, Folder
from services.playback.kept import Kept
from services.playback.misses import Cause, Misses, Why
from services.playback.placement import INIT, Item, Placement
from services.runtime.clock import Clock
from services.runtime.errors import KinoError
from services.runtime.logs import logger
from services.runtime.objects import ObjectStore

_FORGET_EVERY_S = 3600.0
#: How many of the kept are looked at to tell what the least is worth.
_LOOKED_AT = 2000
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


@dataclass(frozen=True, kw_only=True)
class Rank:
    """A rendition among all that plays are known of, 1 for the one worth most."""

    rank: int
    worth: float


class Edge:
    """Reads objects from the disk where they are, else from the origin; keeps those worth it. A `Source`."""

    def __init__(self, origin: ObjectStore, folder: Folder, budget_bytes: int, clock: Clock) -> None:
        """Takes over what an earlier process left in `folder`, and removes what is beyond the budget."""
        self._origin = origin
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._clock = clock
        #: Reads of the origin, and why they were needed.
        self.misses = Misses()
        #: What is planned and waits for the hours in which it may be fetched.
        self.waiting: frozenset[Item] = frozenset()
        self._placement = Placement()
        self._kept: Kept[File] = Kept()
        self._writing: dict[Item, File] = {}
        self._offered: set[asyncio.Task[Verdict]] = set()
        self._forget_s = self._now_s() + _FORGET_EVERY_S
        #: Reads answered by the disk and by the origin, in bytes.
        self.disk_bytes = self.origin_bytes = 0
        #: Of the latter, what was fetched by plan.
        self.filled_bytes = 0
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
        data = await self._from_disk(item, sha256.hex())
        if data is None:
            data = await self._from_origin(item, key, sha256)
            self.misses.count(item, len(data), waits=item in self.waiting)
            await self._keep(File(item, len(data), sha256.hex()), lambda: data)
        return data

    async def _from_disk(self, item: Item, sha256: str) -> bytes | None:
        file = self._kept.get(item)
        if file is None:
            return None
        data = await asyncio.to_thread(self._folder.read, file, sha256)
        if data is not None:
            self.disk_bytes += len(data)
        elif item in self._kept:  # else it was displaced meanwhile
            _log.error("a file of the edge is not what it was", file=file.name)
            self._kept.remove(item)
            self.misses.remember(item, Why(cause=Cause.DAMAGED, at_s=self._now_s()))
        return data

    async def _from_origin(self, item: Item, key: str, sha256: bytes) -> bytes:
        # Its checksum is compared with the catalogue's, below.
        data = await self._asked_origin(item, self._origin.get(key, checked=False))
        if (await asyncio.to_thread(hashlib.sha256, data)).digest() != sha256:
            _log.error("the origin's answer is truncated or wrong", key=key, size_bytes=len(data))
            self.misses.failed(item, Why(cause=Cause.WRONG_ANSWER, at_s=self._now_s()), len(data))
            raise SegmentCorrupt()
        return data

    async def _asked_origin(self, item: Item, answer: Awaitable[bytes]) -> bytes:
        try:
            data = await answer
        except KinoError:
            self.misses.failed(item, Why(cause=Cause.ORIGIN_FAILED, at_s=self._now_s()), 0)
            raise
        self.origin_bytes += len(data)
        return data

    async def part(self, key: str, start: int, length: int) -> bytes:
        """Some bytes of an object that was read before, not verified. Raises what the origin raises."""
        item = item_of(key)
        file = self._kept.get(item)
        if file is not None:
            data = await asyncio.to_thread(self._folder.part, file, start, length)
            if data:
                self.disk_bytes += len(data)
                return data
        data = await self._asked_origin(item, self._origin.get(key, start, length))
        self.misses.count(item, len(data), waits=item in self.waiting)
        return data

    async def fill(self, key: str, sha256: bytes) -> int:
        """Fetch an object that nobody asked for now, and keep it if it is worth it; what was read, in bytes.

        Raises as `read`.
        """
        item = item_of(key)
        if item in self._kept or item in self._writing:
            return 0
        data = await self._from_origin(item, key, sha256)
        self.filled_bytes += len(data)
        await self._keep(File(item, len(data), sha256.hex()), lambda: data)
        return len(data)

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

    @property
    def budget_bytes(self) -> int:
        """What it may keep."""
        return self._budget_bytes

    @property
    def kept_count(self) -> int:
        """Segments on the disk, with init segments."""
        return len(self._kept)

    def keeps(self, item: Item) -> bool:
        """Whether it is on the disk."""
        return item in self._kept

    def files(self) -> Sequence[File]:
        """What is on the disk."""
        return self._kept.files()

    def kept_of(self, group: str) -> Sequence[File]:
        """What is on the disk of a rendition."""
        return [file for file in self._kept.files() if file.item.group == group]

    def worth(self, item: Item) -> float:
        """See `Placement.worth`."""
        return self._placement.worth(item, self._now_s())

    def least_worth(self) -> float:
        """Worth of the least of a sample of what may go; 0 while nothing may."""
        now_s = self._now_s()
        some = itertools.islice(self._kept.loose, _LOOKED_AT)
        return min((self._placement.worth(item, now_s) for item in some), default=0.0)

    def expect(self, expected: Mapping[tuple[str, int], float]) -> None:
        """See `Placement.expect`."""
        self._placement.expect(expected)

    def ranks(self, least_worth: float = 0.0) -> dict[str, Rank]:
        """The renditions that plays are known of, by their group; the most watched first."""
        ranked = sorted(self._placement.worths(self._now_s()).items(), key=lambda one: -one[1])
        return {
            group: Rank(rank=at, worth=worth)
            for at, (group, worth) in enumerate(ranked, 1)
            if worth >= least_worth
        }

    async def _keep(self, file: File, data: Callable[[], bytes]) -> Verdict:
        room = self._room_for(file)
        if room.verdict is not Verdict.KEPT:
            return room.verdict
        self.misses.forget(file.item)
        try:
            await asyncio.to_thread(self._write, file, data, room.victims)
        except OSError as error:
            # A full or broken disk costs speed, not playback.
            _log.error("the edge's disk refuses", problem=str(error))
            self.misses.remember(file.item, Why(cause=Cause.DISK_FAILED, at_s=self._now_s()))
            return Verdict.DISK_FAILED
        finally:
            del self._writing[file.item]
        self._kept.add(file)
        return Verdict.KEPT

    def _room_for(self, file: File) -> _Room:
        """Whether an object is worth its room, and what has to go for it. Books both at once."""
        if file.item in self._kept or file.item in self._writing:
            return _Room(verdict=Verdict.HERE)
        now_s, victims = self._now_s(), list[File]()
        if file.size_bytes > self._budget_bytes:
            self.misses.remember(file.item, Why(cause=Cause.TOO_BIG, at_s=now_s))
            return _Room(verdict=Verdict.TOO_BIG)
        while self.kept_bytes + file.size_bytes > self._budget_bytes:
            loose = self._kept.loose
            victim = self._placement.victim(loose, now_s) if loose else None
            if victim is None or not self._placement.displaces(file.item, victim, now_s):
                self._kept.restore(victims)
                self.misses.remember(file.item, self._why(Cause.NOT_WORTH, victim))
                return _Room(verdict=Verdict.NOT_WORTH)
            victims.append(self._kept.remove(victim))
        for file_out in victims:
            self.misses.remember(file_out.item, self._why(Cause.DISPLACED, file.item))
        self._writing[file.item] = file
        return _Room(verdict=Verdict.KEPT, victims=victims)

    def _why(self, cause: Cause, other: Item | None) -> Why:
        worth = self.worth(other) if other else 0.0
        return Why(cause=cause, at_s=self._now_s(), other=other, other_worth=worth)

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
        counts = json.dumps(self._placement.counts()).encode()
        self._folder.remember(_PLAYS, counts, self._clock.now())

    def _recall(self) -> None:
        data = self._folder.remembered(_PLAYS)
        if data is None:
            return
        try:
            self._placement.restore(json.loads(data))
        except (KeyError, TypeError, ValueError):
            _log.warning("what another version remembered of plays is not understood")
        self._placement.forget(self._now_s())

    def _now_s(self) -> float:
        return self._clock.now().timestamp()


def item_of(key: str) -> Item:
    """What an object is, by its key: `…/{title}/{job}/{rendition}/{number}-{attempt}.m4s`."""
    group, _, name = key.rpartition("/")
    digits = name.partition("-")[0].partition(".")[0]
    return Item(group, int(digits) if digits.isdecimal() else INIT)
