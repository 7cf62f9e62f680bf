"""Where a source is cut: analysis windows, and chunks that follow its shots on the absolute grid.

Chunks last 4 to 7 s and begin on a change of shot where one lies in reach, never over 10 s. A window's edges
are always cuts, so that windows are planned without knowledge of each other; only a window's last chunk may
therefore be short. The plan is the cheapest of all, found by dynamic programming, and depends on nothing but
its arguments.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

from services.media.errors import SourceUnsupported
from services.media.time import Timeline
from services.preprocessor.model import PlannedChunk, Window

WINDOW_SECONDS = 60
#: The first window is short, so that what is played first is soon cut and its sound soon made: two chunks,
#: which hold the ten seconds with which a title plays.
OPENING_SECONDS = 11
SHORTEST_SECONDS, LONGEST_SECONDS, LIMIT_SECONDS = 4, 7, 10
#: What no chunk should be shorter than, even at a window's end.
TINY_SECONDS = 1
#: Where no shot changes, chunks may end on so many frames a second.
STEPS_PER_SECOND = 4
#: Price of a second outside 4 to 7 s; being outside at all costs one more. Whole numbers are exact and quick.
UNIT = 100
#: Price of a boundary that is no change of shot, against `UNIT`.
OFF_SHOT_COST = 40


def plan_windows(timeline: Timeline) -> list[Window]:
    """Windows that tile the source: a short one for the opening, then even ones of about a minute.

    A source of less than three openings has one window.
    """
    total, opening = timeline.duration_ticks, OPENING_SECONDS * timeline.timescale
    if total < 3 * opening:
        return [Window(start_frame=0, frame_count=timeline.frame_count)]
    rest = total - opening
    count = max(1, round(Fraction(rest, WINDOW_SECONDS * timeline.timescale)))
    edges = [timeline.frame_at_ticks(opening + Fraction(rest * k, count)) for k in range(count)]
    edges = [0, *edges, timeline.frame_count]
    return [Window(start_frame=a, frame_count=b - a) for a, b in pairwise(edges) if b > a]


def chunk_cost(ticks: int, timescale: int) -> int:
    """How unwelcome a chunk of this length is, were its boundaries free, in `UNIT`s times the timescale."""
    if ticks < TINY_SECONDS * timescale:
        return 10 * UNIT * timescale
    if ticks < SHORTEST_SECONDS * timescale:
        return UNIT * (timescale + SHORTEST_SECONDS * timescale - ticks)
    if ticks > LONGEST_SECONDS * timescale:
        return UNIT * (timescale + ticks - LONGEST_SECONDS * timescale)
    return abs(2 * ticks - (SHORTEST_SECONDS + LONGEST_SECONDS) * timescale)


def _candidates(timeline: Timeline, window: Window, shots: set[int]) -> list[int]:
    """Frames at which a chunk may begin or end: changes of shot, and one frame for each step of the clock."""
    start, end = timeline.pts(window.start_frame), timeline.pts(window.end_frame)
    found = {window.start_frame, window.end_frame, *shots}
    for k in range(1, (end - start) * STEPS_PER_SECOND // timeline.timescale + 1):
        at = start + Fraction(k * timeline.timescale, STEPS_PER_SECOND)
        frame = timeline.frame_at_ticks(at)
        # The first frame at or after the step: a long frame must not hide its own end.
        found.add(frame if timeline.pts(frame) >= at else frame + 1)
    return sorted(frame for frame in found if window.start_frame <= frame <= window.end_frame)


def _cheapest(points: list[int], timeline: Timeline, shots: set[int]) -> list[int]:
    """The cheapest way along `points` (frames) in steps of at most ten seconds."""
    times, timescale = [timeline.pts(point) for point in points], timeline.timescale
    best: list[tuple[int, int] | None] = [(0, -1)]
    for j in range(1, len(points)):
        boundary = 0 if j == len(points) - 1 or points[j] in shots else OFF_SHOT_COST * timescale
        first = bisect_left(times, times[j] - LIMIT_SECONDS * timescale)
        choices = [
            (known[0] + chunk_cost(times[j] - times[i], timescale) + boundary, i)
            for i in range(first, j)
            if (known := best[i]) is not None
        ]
        best.append(min(choices, default=None))
    if best[-1] is None:
        raise SourceUnsupported(problem=f"a single picture stands for more than {LIMIT_SECONDS} s")
    path = [len(points) - 1]
    while path[-1] > 0:
        reached = best[path[-1]]
        assert reached is not None
        path.append(reached[1])
    return [points[index] for index in reversed(path)]


def plan_chunks(
    timeline: Timeline, window: Window, shot_change_frames: Iterable[int], first_number: int
) -> list[PlannedChunk]:
    """The chunks that tile `window`, numbered from `first_number`.

    Raises `SourceUnsupported` when a single frame lasts over ten seconds, which no cut can cure.
    """
    shots = {frame for frame in shot_change_frames if window.start_frame < frame < window.end_frame}
    points = _candidates(timeline, window, shots)
    chunks = []
    for number, (start, end) in enumerate(pairwise(_cheapest(points, timeline, shots)), start=first_number):
        chunks.append(
            PlannedChunk(
                number=number,
                start_frame=start,
                frame_count=end - start,
                start_ticks=timeline.pts(start),
                duration_ticks=timeline.pts(end) - timeline.pts(start),
                starts_on_shot_change=start in shots,
            )
        )
    return chunks
