"""Why an edge had to read from the origin: how often for each cause, and the last cause of each segment."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass

from services.playback.placement import Item

#: Segments whose cause is remembered, about 300 bytes each.
_REMEMBERED = 50_000


class Cause(enum.Enum):
    """Why a segment isn't on the disk; named as in the contract."""

    FIRST_ASK = enum.auto()
    NOT_WORTH = enum.auto()
    DISPLACED = enum.auto()
    TOO_BIG = enum.auto()
    DAMAGED = enum.auto()
    DISK_FAILED = enum.auto()
    ORIGIN_FAILED = enum.auto()
    WRONG_ANSWER = enum.auto()
    #: It is planned, and waits for the hours in which it may be fetched.
    WINDOW_CLOSED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What happened to a segment that isn't on the disk."""

    cause: Cause
    at_s: float
    #: What it gave way to, or was not worth displacing.
    other: Item | None = None
    other_worth: float = 0.0


@dataclass(slots=True)
class Count:
    """Reads of the origin."""

    reads: int = 0
    bytes: int = 0


class Misses:
    """Counts since the process started."""

    def __init__(self) -> None:
        self.counts: dict[Cause, Count] = {}
        self._whys: OrderedDict[Item, Why] = OrderedDict()

    def why(self, item: Item) -> Why | None:
        """What happened to a segment last; None while nothing did, or too long ago."""
        return self._whys.get(item)

    def count(self, item: Item, size_bytes: int, *, waits: bool) -> None:
        """It was read from the origin; `waits`: it is planned and not fetched yet."""
        why = self._whys.get(item)
        cause = why.cause if why else Cause.FIRST_ASK
        if cause in (Cause.ORIGIN_FAILED, Cause.WRONG_ANSWER):
            cause = Cause.FIRST_ASK
        self._add(Cause.WINDOW_CLOSED if waits else cause, size_bytes)

    def failed(self, item: Item, why: Why, size_bytes: int) -> None:
        """It could not be read from the origin. Why it wasn't on the disk stays known."""
        self._add(why.cause, size_bytes)
        if item not in self._whys:
            self.remember(item, why)

    def remember(self, item: Item, why: Why) -> None:
        """It isn't on the disk, or no longer."""
        self._whys[item] = why
        self._whys.move_to_end(item)
        if len(self._whys) > _REMEMBERED:
            self._whys.popitem(last=False)

    def forget(self, item: Item) -> None:
        """It is on the disk."""
        self._whys.pop(item, None)

    def _add(self, cause: Cause, size_bytes: int) -> None:
        count = self.counts.setdefault(cause, Count())
        count.reads += 1
        count.bytes += size_bytes
