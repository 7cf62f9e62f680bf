"""Unions of half-open stretches of time, in nanoseconds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

#: (start, end), end exclusive and after the start.
Interval = tuple[int, int]
Intervals = tuple[Interval, ...]

#: A view keeps at most so many; more come only from a broken or hostile client.
MAX_INTERVALS = 1_000
_SMALL_GAP_NS = 1_000_000_000


def union(*many: Iterable[Interval]) -> Intervals:
    """Everything in any of them: ascending, without overlaps, neither empty nor touching stretches."""
    merged: list[list[int]] = []
    for start, end in sorted(
        interval for intervals in many for interval in intervals if interval[0] < interval[1]
    ):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return tuple((start, end) for start, end in merged)


def bounded(intervals: Intervals, limit: int = MAX_INTERVALS) -> Intervals:
    """The union in at most `limit` stretches: of more, gaps under 1 s are closed, then the smallest."""
    if len(intervals) <= limit:
        return intervals
    gaps = sorted((after[0] - before[1], index) for index, (before, after) in enumerate(pairwise(intervals)))
    surplus = len(intervals) - limit
    closed = {index for rank, (gap, index) in enumerate(gaps) if rank < surplus or gap < _SMALL_GAP_NS}
    return union(intervals, [(intervals[index][1], intervals[index + 1][0]) for index in closed])


def clipped(intervals: Iterable[Interval], end: int) -> Intervals:
    """What of them lies before `end`."""
    return tuple((start, min(stop, end)) for start, stop in intervals if start < end)


def length(intervals: Intervals) -> int:
    """How long the stretches of a union last together."""
    return sum(end - start for start, end in intervals)
