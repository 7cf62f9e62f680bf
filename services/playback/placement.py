"""Which segments are worth a place on an edge: ranked by what viewers of their rendition do, not by age.

A film is watched in order, so who begins it says more than the one segment asked for: all that follows will
be wanted, by this viewer soon and by the next ones. So a segment is worth how many began its title in any
rendition, times the part of all titles' viewers who come to this segment in this rendition. Viewers are
counted where they begin, once each: how long one stays says nothing of how many will come. Where a title's
viewers do otherwise than those of the others, they are believed the more of them there were. A newcomer must
be worth clearly more than what it displaces, so that two titles of about the same rank don't push each other
out in turn.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

K = TypeVar("K")

#: Segments that share a title's own count: about three quarters of a minute.
PART_SEGMENTS = 8
#: How soon a play is half forgotten.
HALF_S = 64_800.0
#: A title's own plays of a part are believed as much as all titles' when they are so many: eight viewers.
OWN_PLAYS = 64.0
#: Who doesn't ask for the next segment within this has left.
LEFT_AFTER_S = 600.0
#: A newcomer displaces what is worth less than this part of it.
HYSTERESIS = 0.95
#: How many of the kept are looked at to find one of the least worth.
SAMPLE = 48


#: The number of an init segment.
INIT = -1


@dataclass(frozen=True, slots=True)
class Item:
    """A segment of a rendition of a title."""

    #: The title and the rendition.
    group: str
    #: `INIT` for the init segment.
    number: int


@dataclass(slots=True)
class _Count:
    """Plays, each half forgotten after `HALF_S`."""

    value: float = 0.0
    at_s: float = 0.0

    def add(self, now_s: float) -> None:
        self.value, self.at_s = self.now(now_s) + 1.0, now_s

    def join(self, other: _Count) -> None:
        """Count what the other did, too."""
        now_s = max(self.at_s, other.at_s)
        self.value, self.at_s = self.now(now_s) + other.now(now_s), now_s

    def now(self, now_s: float) -> float:
        # A clock that was set back makes nothing more popular than it was.
        age_s = max(now_s - self.at_s, 0.0)
        return self.value * 0.5 ** (age_s / HALF_S) if self.value else 0.0


class Placement:
    """What is known of plays, and what follows for a segment. Knows no bytes and no disk.

    Times are seconds of the time of day, so that the counts mean the same after a restart.
    """

    def __init__(self, seed: int | None = None) -> None:
        #: Plays by rendition of a title, and part.
        self._parts: dict[str, dict[int, _Count]] = {}
        #: How many began a title, and any title.
        self._titles: defaultdict[str, _Count] = defaultdict(_Count)
        self._all = _Count()
        #: Plays of all titles, by rendition and segment, and by rendition and part.
        self._alike: defaultdict[tuple[str, int], _Count] = defaultdict(_Count)
        self._alike_parts: defaultdict[tuple[str, int], _Count] = defaultdict(_Count)
        #: Viewers of a rendition of a title by the segment they asked for last, and when one did.
        self._viewers: dict[str, dict[int, tuple[int, float]]] = {}
        self._expected: Mapping[tuple[str, int], float] = {}
        self._random = random.Random(seed)

    def seen(self, item: Item, now_s: float) -> None:
        """Somebody plays that segment."""
        parts = self._parts.setdefault(item.group, {})
        if item.number == INIT:
            return
        part = item.number // PART_SEGMENTS
        title, _, rendition = item.group.rpartition("/")
        counts = [
            parts.setdefault(part, _Count()),
            self._alike[rendition, item.number],
            self._alike_parts[rendition, part],
        ]
        if not self._went_on(item, now_s):
            counts += [self._titles[title], self._all]
        for count in counts:
            count.add(now_s)

    def _went_on(self, item: Item, now_s: float) -> bool:
        """Whether one asks for it who asked for the segment before; remembers who asks for it now."""
        viewers = self._viewers.setdefault(item.group, {})

        def at(number: int) -> int:
            count, last_s = viewers.get(number, (0, 0.0))
            return count if now_s - last_s < LEFT_AFTER_S else 0

        behind = at(item.number - 1)
        if behind > 1:
            viewers[item.number - 1] = behind - 1, viewers[item.number - 1][1]
        else:
            viewers.pop(item.number - 1, None)
        viewers[item.number] = at(item.number) + 1, now_s
        return behind > 0

    def worth(self, item: Item, now_s: float) -> float:
        """Plays that are to be expected in a day or so; only the order of two values means something.

        Also in a thread.
        """
        parts = self._parts.get(item.group, {})
        if item.number == INIT:
            # As the beginning of the part that was played most.
            played = [(count.now(now_s), part) for part, count in list(parts.items())]
            return self.worth(Item(item.group, max(played)[1] * PART_SEGMENTS), now_s) if played else 0.0
        part = item.number // PART_SEGMENTS
        own = parts.get(part)
        value = self._told(item, part, own.now(now_s) if own else 0.0, now_s)
        return value + self._expected.get((item.group, part), 0.0)

    def _told(self, item: Item, part: int, own: float, now_s: float) -> float:
        """What plays tell; `own`: those of its part."""
        title, _, rendition = item.group.rpartition("/")
        of_title, alike = self._titles.get(title), self._alike_parts.get((rendition, part))
        if of_title is None or alike is None:
            return 0.0
        everything, plays = self._all.now(now_s), alike.now(now_s)
        if not everything or not plays:
            return 0.0
        # Of the part, if this title is watched like the others, and corrected by how it is.
        likely = of_title.now(now_s) / everything * plays
        likely *= (own + OWN_PLAYS) / (likely + OWN_PLAYS)
        # Where nobody came yet: as many as to the one before.
        numbers = range(item.number, part * PART_SEGMENTS - 1, -1)
        here = next((found for at in numbers if (found := self._alike.get((rendition, at)))), None)
        return likely * (here.now(now_s) / plays if here else 1 / PART_SEGMENTS)

    def expect(self, expected: Mapping[tuple[str, int], float]) -> None:
        """How much parts (group and number) will be asked for beyond what plays tell, until told anew."""
        self._expected = expected

    def worths(self, now_s: float) -> dict[str, float]:
        """What each rendition's best watched part is worth."""
        return {group: self.worth(Item(group, INIT), now_s) for group in list(self._parts)}

    def victim(self, kept: Sequence[Item], now_s: float) -> Item:
        """One of the least worth of those kept, which must not be empty."""
        some = kept if len(kept) <= SAMPLE else self._random.choices(kept, k=SAMPLE)
        return min(some, key=lambda item: self.worth(item, now_s))

    def displaces(self, item: Item, victim: Item, now_s: float) -> bool:
        """Whether a newcomer may take the victim's place.

        An init segment always may: it takes a thousandth of a segment's room, and nothing plays without it.
        """
        return item.number == INIT or self.worth(victim, now_s) < HYSTERESIS * self.worth(item, now_s)

    def forget(self, now_s: float, below: float = 0.01) -> None:
        """Drop counts that say nothing any more, and viewers who left."""
        for group, parts in list(self._parts.items()):
            if all(part.now(now_s) < below for part in parts.values()):
                del self._parts[group]
        _drop(self._titles, now_s, below)
        _drop(self._alike, now_s, below)
        _drop(self._alike_parts, now_s, below)
        for group, viewers in list(self._viewers.items()):
            if all(now_s - last_s >= LEFT_AFTER_S for _, last_s in viewers.values()):
                del self._viewers[group]

    def counts(self) -> dict[str, Any]:
        """What is known, to be kept over a restart. May be called beside the others, in a thread."""
        # Each list() of a dictionary is one step for the other threads.
        return {
            "titles": [(title, one.value, one.at_s) for title, one in list(self._titles.items())],
            "segments": [(*key, one.value, one.at_s) for key, one in list(self._alike.items())],
            "parts": {
                group: [(part, one.value, one.at_s) for part, one in list(parts.items())]
                for group, parts in list(self._parts.items())
            },
        }

    def restore(self, counts: Mapping[str, Any]) -> None:
        """Know what `counts` told, and nothing else. Raises `KeyError`, `TypeError` or `ValueError`."""
        titles = {title: _Count(value, at_s) for title, value, at_s in counts["titles"]}
        alike = {(kind, number): _Count(value, at_s) for kind, number, value, at_s in counts["segments"]}
        self._parts = {
            group: {part: _Count(value, at_s) for part, value, at_s in parts}
            for group, parts in counts["parts"].items()
        }
        self._titles, self._alike = defaultdict(_Count, titles), defaultdict(_Count, alike)
        self._all, self._alike_parts, self._viewers = _Count(), defaultdict(_Count), {}
        for one in titles.values():
            self._all.join(one)
        for (kind, number), one in alike.items():
            self._alike_parts[kind, number // PART_SEGMENTS].join(one)


def _drop(counts: dict[K, _Count], now_s: float, below: float) -> None:
    for key in [key for key, count in counts.items() if count.now(now_s) < below]:
        del counts[key]
