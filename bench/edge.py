"""How many bytes an edge serves by itself, on made-up weeks of viewing, against the policies of the books.

The traces are ours, because published ones don't know of titles and segments: titles by Zipf, sessions that
begin mostly at the start and leave early or late, one rung of three a session, a daily rhythm, and every day
titles that come and titles that go. Same trace, same capacity for all; `libcachesim` plays the others.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import libcachesim

from bench.report import Report, Row, conditions
from services.playback.placement import Item, Placement

ROUNDS = 3
CAPACITIES = (0.05, 0.10, 0.20)
DAY_S = 86_400.0
SEGMENT_S = 6.0
ONLINE = {"LRU": "LRU", "S3-FIFO": "S3FIFO", "W-TinyLFU": "WTinyLFU"}


@dataclass(frozen=True, kw_only=True)
class Viewing:
    """How people watch."""

    titles: int = 250
    segments: int = 50
    sessions_a_day: int = 1200
    days: int = 3
    zipf: float = 0.9
    #: Part of the titles that change places in the ranking every day.
    daily_shift: float = 0.1
    #: Part of the viewers who leave at each segment.
    leave: float = 0.015
    #: Size of a segment of each rung, and how many watch it.
    rungs: tuple[tuple[int, float], ...] = ((3_000_000, 0.6), (1_500_000, 0.3), (600_000, 0.1))


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a trace."""

    time_s: float
    item: Item
    size_bytes: int


def trace(viewing: Viewing, seed: int, rankings: list[list[int]] | None = None) -> list[Asked]:
    """Requests in the order of time; the same for the same seed. `rankings`: is told each day's order."""
    chance = random.Random(seed)
    ranking = list(range(viewing.titles))
    weights = [1 / (rank + 1) ** viewing.zipf for rank in range(viewing.titles)]
    asked: list[Asked] = []
    for day in range(viewing.days):
        for _ in range(int(viewing.titles * viewing.daily_shift / 2)):
            a, b = chance.randrange(viewing.titles), chance.randrange(viewing.titles)
            ranking[a], ranking[b] = ranking[b], ranking[a]
        if rankings is not None:
            rankings.append(list(ranking))
        for title in chance.choices(ranking, weights, k=viewing.sessions_a_day):
            # Two of three begin in the evening.
            hour = chance.gauss(20.5, 1.5) % 24 if chance.random() < 2 / 3 else chance.uniform(0, 24)
            asked += _session(viewing, chance, title, day * DAY_S + hour * 3600)
    return sorted(asked, key=lambda one: one.time_s)


def _session(viewing: Viewing, chance: random.Random, title: int, start_s: float) -> Iterator[Asked]:
    shares = [share for _, share in viewing.rungs]
    rung = chance.choices(range(len(viewing.rungs)), shares)[0]
    # A quarter resume somewhere.
    first = chance.randrange(viewing.segments) if chance.random() < 0.25 else 0
    for number in range(first, viewing.segments):
        at_s = start_s + (number - first) * SEGMENT_S
        yield Asked(at_s, Item(f"{title}/{rung}", number), viewing.rungs[rung][0])
        if chance.random() < viewing.leave:
            return


def total_bytes(asked: list[Asked]) -> int:
    """Of all different segments."""
    return sum({one.item: one.size_bytes for one in asked}.values())


def placed(asked: list[Asked], capacity_bytes: int, after_s: float) -> float:
    """Byte hit ratio of the edge's placement after `after_s`."""
    placement, kept = Placement(seed=1), _Kept()
    hit = total = 0
    for one in asked:
        placement.seen(one.item, one.time_s)
        if one.time_s >= after_s:
            total += one.size_bytes
            hit += one.size_bytes if one.item in kept.sizes else 0
        if one.item not in kept.sizes:
            _admit(placement, kept, one, capacity_bytes)
    return hit / total


def _admit(placement: Placement, kept: _Kept, one: Asked, capacity_bytes: int) -> None:
    while kept.bytes + one.size_bytes > capacity_bytes:
        victim = placement.victim(kept.items, one.time_s)
        if not placement.displaces(one.item, victim, one.time_s):
            return
        kept.remove(victim)
    kept.add(one.item, one.size_bytes)


class _Kept:
    """What the edge holds, with removal in constant time."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.sizes: dict[Item, int] = {}
        self._places: dict[Item, int] = {}
        self.bytes = 0

    def add(self, item: Item, size_bytes: int) -> None:
        self._places[item] = len(self.items)
        self.items.append(item)
        self.sizes[item] = size_bytes
        self.bytes += size_bytes

    def remove(self, item: Item) -> None:
        place, last = self._places.pop(item), self.items.pop()
        if last != item:
            self.items[place], self._places[last] = last, place
        self.bytes -= self.sizes.pop(item)


def simulated(policy: str, asked: list[Asked], capacity_bytes: int, after_s: float) -> float:
    """Byte hit ratio of a policy of `libcachesim` after `after_s`."""
    cache = getattr(libcachesim, policy)(cache_size=capacity_bytes)
    numbers: dict[Item, int] = {}
    hit = total = 0
    following = _next_uses(asked)
    for index, one in enumerate(asked):
        request = libcachesim.Request()
        request.obj_id = numbers.setdefault(one.item, len(numbers) + 1)
        request.obj_size = one.size_bytes
        request.clock_time = int(one.time_s)
        request.next_access_vtime = following[index]
        was = cache.get(request)
        if one.time_s >= after_s:
            total += one.size_bytes
            hit += one.size_bytes if was else 0
    return hit / total


def optimum(asked: list[Asked], capacity_bytes: int, after_s: float) -> float:
    """Byte hit ratio of Belady's rule, which knows the future: what is asked for last goes first."""
    following, used = _next_uses(asked), 0
    kept: dict[Item, tuple[int, int]] = {}
    #: The last next use first; a number instead of the item, which has no order.
    heap: list[tuple[int, int]] = []
    hit = total = 0
    for index, one in enumerate(asked):
        was = one.item in kept
        if one.time_s >= after_s:
            total += one.size_bytes
            hit += one.size_bytes if was else 0
        if not was:
            used += one.size_bytes
        kept[one.item] = (following[index], one.size_bytes)
        heapq.heappush(heap, (-following[index], index))
        while used > capacity_bytes:
            when, at = heapq.heappop(heap)
            item = asked[at].item
            if item in kept and kept[item][0] == -when:
                used -= kept.pop(item)[1]
    return hit / total


def informed(viewing: Viewing, seed: int, part: float) -> float:
    """Byte hit ratio after the first day of what is asked for most by the law of the trace, kept all day.

    By expectation no policy serves more that doesn't know who comes when: a byte is worth how often it will
    be asked for. Those on their way to a segment are known too; counted in, they change no digit here.
    """
    rankings: list[list[int]] = []
    asked = trace(viewing, seed, rankings)
    capacity_bytes = total_bytes(asked) * part
    reached, kept = _reached(viewing), list[set[Item]]()
    for ranking in rankings:
        likely = sorted(
            (-share * reached[number] / (rank + 1) ** viewing.zipf, title, rung, number)
            for rank, title in enumerate(ranking)
            for rung, (_, share) in enumerate(viewing.rungs)
            for number in range(viewing.segments)
        )
        room, chosen = capacity_bytes, set[Item]()
        for _, title, rung, number in likely:
            room -= viewing.rungs[rung][0]
            if room < 0:
                break
            chosen.add(Item(f"{title}/{rung}", number))
        kept.append(chosen)
    later = [one for one in asked if one.time_s >= DAY_S]
    # The last sessions of the last day go on past midnight.
    hits = (one for one in later if one.item in kept[min(int(one.time_s // DAY_S), len(kept) - 1)])
    return sum(one.size_bytes for one in hits) / sum(one.size_bytes for one in later)


def _reached(viewing: Viewing) -> list[float]:
    """Part of a title's sessions that come to each segment."""
    reached, here = list[float](), 0.0
    for number in range(viewing.segments):
        begin = 0.25 / viewing.segments + (0.0 if number else 0.75)
        here = here * (1 - viewing.leave) + begin
        reached.append(here)
    return reached


def _next_uses(asked: list[Asked]) -> list[int]:
    """For each request, the index of the next one for the same segment."""
    following, last = [len(asked) + 1] * len(asked), dict[Item, int]()
    for index in range(len(asked) - 1, -1, -1):
        following[index] = last.get(asked[index].item, len(asked) + 1)
        last[asked[index].item] = index
    return following


def run(rounds: int = ROUNDS) -> Report:
    """One trace a round; medians of the byte hit ratios after the first day."""
    viewing = Viewing()
    found: dict[tuple[str, float], list[float]] = {}
    for seed in range(1, rounds + 1):
        asked = trace(viewing, seed)
        whole = total_bytes(asked)
        for part in CAPACITIES:
            capacity = int(whole * part)
            ratios = {"placement": placed(asked, capacity, DAY_S), "Belady": optimum(asked, capacity, DAY_S)}
            ratios["informed"] = informed(viewing, seed, part)
            ratios |= {name: simulated(kind, asked, capacity, DAY_S) for name, kind in ONLINE.items()}
            for name, ratio in ratios.items():
                found.setdefault((name, part), []).append(ratio)
    rows: list[Row] = []
    for part in CAPACITIES:
        rows += _rows(part, {name: median(values) for (name, at), values in found.items() if at == part})
    stated = conditions(rounds=rounds, seeds=f"1 to {rounds}", viewing=viewing, libcachesim="0.3.5")
    return Report(bench="edge", rows=rows, conditions=stated)


def _rows(part: float, ratios: dict[str, float]) -> list[Row]:
    ours, best = ratios["placement"], max(ONLINE, key=lambda name: ratios[name])
    name = f"byte hit ratio at {part:.0%}"
    peers = ", ".join(f"{peer} {ratios[peer]:.3f}" for peer in ONLINE)
    return [
        Row(name=name, value=ours, unit="", peer=peers, ratio=ours / ratios[best], goal=">=1.05"),
        Row(
            name=f"{name}, of the optimum",
            value=ours,
            unit="",
            peer=f"Belady {ratios['Belady']:.3f}",
            ratio=ours / ratios["Belady"],
            goal=">=0.85",
        ),
        Row(
            name=f"{name}, told how popular each title is",
            value=ratios["informed"],
            unit="",
            peer=f"Belady {ratios['Belady']:.3f}",
            ratio=ratios["informed"] / ratios["Belady"],
        ),
    ]
