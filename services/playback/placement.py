"""Which segments are worth a place on an edge: ranked by what viewers of their rendition do, not by age.

A film is watched in order, so a request says more than its own segment: those who just asked for an earlier
part of a rendition will soon ask for this one, and those who began it in the last hours show how often it
will be begun again. Few ask for any one part, so most of what is known of it comes from others: how often its
title is played in any rendition, times the share that this part of this rendition has over all titles. A
newcomer must be worth clearly more than what it displaces, so that two titles of about the same rank don't
push each other out in turn.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

K = TypeVar("K")

#: Segments that share a count: about three quarters of a minute.
PART_SEGMENTS = 8
#: How soon a play is half forgotten: one count for what is popular these days, one for who watches now.
LONG_S, SHORT_S = 64_800.0, 900.0
#: How many parts behind a segment its next viewers are looked for.
BEHIND_PARTS = 6
#: What a viewer on the way counts, against what is known of the days before (see `BY_TITLE`).
ON_THE_WAY = 0.2
#: What the title's plays say of a part, against the part's own.
BY_TITLE = 8.0
#: A newcomer displaces what is worth less than this part of it.
HYSTERESIS = 0.9
#: How many of the kept are looked at to find one of the least worth.
SAMPLE = 24


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
    """Requests, each half forgotten after some time."""

    value: float = 0.0
    at_s: float = 0.0

    def add(self, now_s: float, half_life_s: float) -> None:
        self.value = self.now(now_s, half_life_s) + 1.0
        self.at_s = now_s

    def now(self, now_s: float, half_life_s: float) -> float:
        # A clock that was set back makes nothing more popular than it was.
        age_s = max(now_s - self.at_s, 0.0)
        return self.value * 0.5 ** (age_s / half_life_s) if self.value else 0.0


@dataclass(slots=True)
class _Part:
    long: _Count = field(default_factory=_Count)
    short: _Count = field(default_factory=_Count)


#: What is known of a part of a rendition: its number, and both counts with their times.
PartCounts = tuple[int, float, float, float, float]


class Placement:
    """What is known of plays, and what follows for a segment. Knows no bytes and no disk.

    Times are seconds of the time of day, so that the counts mean the same after a restart.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._parts: dict[str, dict[int, _Part]] = {}
        self._expected: Mapping[tuple[str, int], float] = {}
        #: The same plays by title, by rendition and part of all titles, and all of them.
        self._titles: defaultdict[str, _Count] = defaultdict(_Count)
        self._alike: defaultdict[tuple[str, int], _Count] = defaultdict(_Count)
        self._all = _Count()
        self._random = random.Random(seed)

    def seen(self, item: Item, now_s: float) -> None:
        """Somebody plays that segment."""
        number = item.number // PART_SEGMENTS
        part = self._parts.setdefault(item.group, {}).setdefault(number, _Part())
        part.long.add(now_s, LONG_S)
        part.short.add(now_s, SHORT_S)
        if item.number != INIT:
            title, _, rendition = item.group.rpartition("/")
            for count in (self._titles[title], self._alike[rendition, number], self._all):
                count.add(now_s, LONG_S)

    def worth(self, item: Item, now_s: float) -> float:
        """How much it will be asked for; only the order of two values means something. Also in a thread."""
        parts = self._parts.get(item.group, {})
        if item.number == INIT:
            return max((part.long.now(now_s, LONG_S) for part in list(parts.values())), default=0.0)
        number = item.number // PART_SEGMENTS
        own = parts.get(number)
        value = own.long.now(now_s, LONG_S) if own else 0.0
        value = (value + BY_TITLE * self._by_title(item.group, number, now_s)) / (1 + BY_TITLE)
        value += self._expected.get((item.group, number), 0.0)
        for behind in range(1, min(BEHIND_PARTS, number) + 1):
            part = parts.get(number - behind)
            if part is not None:
                value += ON_THE_WAY * part.short.now(now_s, SHORT_S)
        return value

    def _by_title(self, group: str, number: int, now_s: float) -> float:
        """How much a part is played if its title is played like the others."""
        title, _, rendition = group.rpartition("/")
        of_title, alike = self._titles.get(title), self._alike.get((rendition, number))
        if of_title is None or alike is None:
            return 0.0
        everything = self._all.now(now_s, LONG_S)
        return of_title.now(now_s, LONG_S) * alike.now(now_s, LONG_S) / everything if everything else 0.0

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
        """Drop counts that say nothing any more."""
        for group, parts in list(self._parts.items()):
            if all(part.long.now(now_s, LONG_S) < below for part in parts.values()):
                del self._parts[group]
        _drop(self._titles, now_s, below)
        _drop(self._alike, now_s, below)

    def counts(self) -> dict[str, list[PartCounts]]:
        """What is known, to be kept over a restart. May be called beside the others, in a thread."""
        # Each list() of a dictionary is one step for the other threads.
        return {
            group: [
                (number, part.long.value, part.long.at_s, part.short.value, part.short.at_s)
                for number, part in list(parts.items())
            ]
            for group, parts in list(self._parts.items())
        }

    def _add_up(self) -> None:
        """Sums by title and by rendition and part; all at the time of the last play."""
        known = [
            (group.rpartition("/"), number, part.long)
            for group, parts in self._parts.items()
            for number, part in parts.items()
            if number >= 0
        ]
        now_s = max((count.at_s for _, _, count in known), default=0.0)
        self._titles, self._alike = defaultdict(_Count), defaultdict(_Count)
        self._all = _Count(0.0, now_s)
        for (title, _, rendition), number, count in known:
            for whole in (self._titles[title], self._alike[rendition, number], self._all):
                whole.value, whole.at_s = whole.value + count.now(now_s, LONG_S), now_s

    def restore(self, counts: Mapping[str, Sequence[PartCounts]]) -> None:
        """Know what `counts` told, and nothing else."""
        self._parts = {
            group: {
                number: _Part(_Count(long, long_s), _Count(short, short_s))
                for number, long, long_s, short, short_s in parts
            }
            for group, parts in counts.items()
        }
        self._add_up()


def _drop(counts: dict[K, _Count], now_s: float, below: float) -> None:
    for key in [key for key, count in counts.items() if count.now(now_s, LONG_S) < below]:
        del counts[key]
