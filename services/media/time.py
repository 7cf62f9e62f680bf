"""Media time: rational ticks, frame timelines and the grid of segments.

One rule holds everywhere (history, cues, seek, trim): an offset on the source timeline means the frame with
the largest presentation time at or before it. Presentation times are integers in ticks of a timescale; a tick
becomes a `Duration` rounded *up* to the nanosecond, and comparison is done in ticks, so that the nanoseconds
of a frame always lead back to that frame. Zero is the first presented video frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import groupby, pairwise

NS_PER_SECOND = 1_000_000_000
US_PER_SECOND = 1_000_000
NS_PER_US = 1_000


def ticks_to_ns_up(ticks: int, timescale: int) -> int:
    """The smallest whole nanosecond at or after `ticks`."""
    return -(-ticks * NS_PER_SECOND // timescale)


def rescale(ticks: int, source: int, target: int) -> Fraction:
    """`ticks` of a clock of `source` Hz, exactly, in ticks of a clock of `target` Hz."""
    return Fraction(ticks * target, source)


@dataclass(frozen=True, kw_only=True)
class FrameRun:
    """`count` consecutive frames that each last `duration_ticks`."""

    count: int
    duration_ticks: int
    #: Whether they show the picture of the frame before the run again.
    held: bool = False

    def __post_init__(self) -> None:
        if self.count <= 0 or self.duration_ticks <= 0:
            raise ValueError(
                f"a run needs a positive count and duration: {self.count} x {self.duration_ticks}"
            )


def run_lengths(durations: Iterable[int]) -> tuple[FrameRun, ...]:
    """The run-length form of a sequence of frame durations, in ticks."""
    return tuple(
        FrameRun(count=sum(1 for _ in same), duration_ticks=duration) for duration, same in groupby(durations)
    )


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Every presented frame of a video, as run lengths from zero; `timescale` is ticks per second."""

    timescale: int
    runs: tuple[FrameRun, ...]

    def __post_init__(self) -> None:
        if self.timescale <= 0:
            raise ValueError(f"timescale must be positive: {self.timescale}")

    @classmethod
    def constant(cls, *, fps: Fraction, frame_count: int) -> Timeline:
        """`frame_count` frames at the constant rate `fps`, one frame lasting the rate's denominator."""
        runs = (FrameRun(count=frame_count, duration_ticks=fps.denominator),) if frame_count else ()
        return cls(timescale=fps.numerator, runs=runs)

    @classmethod
    def from_pts(cls, *, timescale: int, pts: Sequence[int], end: int) -> Timeline:
        """Frames shown at `pts` (rising, any origin), the last until `end`; the first becomes zero.

        Raises `ValueError` when the times do not rise.
        """
        return cls(timescale=timescale, runs=run_lengths(b - a for a, b in pairwise([*pts, end])))

    @cached_property
    def _starts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        frames, ticks = [0], [0]
        for run in self.runs:
            frames.append(frames[-1] + run.count)
            ticks.append(ticks[-1] + run.count * run.duration_ticks)
        return tuple(frames), tuple(ticks)

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        return self._starts[0][-1]

    @property
    def duration_ticks(self) -> int:
        """The end of the last frame."""
        return self._starts[1][-1]

    @property
    def constant_rate(self) -> Fraction | None:
        """Frames per second when every frame lasts as long as the others, else None."""
        if len(self.runs) != 1:
            return None
        return Fraction(self.timescale, self.runs[0].duration_ticks)

    def pts(self, frame: int) -> int:
        """When `frame` is first shown, in ticks; the frame count itself gives the end of the film."""
        if not 0 <= frame <= self.frame_count:
            raise IndexError(f"frame {frame} of {self.frame_count}")
        frames, ticks = self._starts
        run = min(bisect_right(frames, frame), len(self.runs)) - 1
        if run < 0:
            return 0
        return ticks[run] + (frame - frames[run]) * self.runs[run].duration_ticks

    def all_pts(self) -> Iterator[int]:
        """The presentation time of every frame, in ticks, in order."""
        at = 0
        for run in self.runs:
            for _ in range(run.count):
                yield at
                at += run.duration_ticks

    def frame_at_ticks(self, ticks: int | Fraction) -> int:
        """The frame on show at `ticks`; the first before zero, the last from the end on."""
        frames, starts = self._starts
        if not self.runs or ticks < 0:
            return 0
        run = min(bisect_right(starts, ticks), len(self.runs)) - 1
        inside = int((ticks - starts[run]) // self.runs[run].duration_ticks)
        return min(frames[run] + inside, self.frame_count - 1)

    def frame_at(self, offset_ns: int) -> int:
        """The frame on show at `offset_ns`; the first before zero, the last from the end on.

        A whole number of microseconds is a browser's, which cuts a frame's time down to them and so lies up
        to a microsecond before the frame it names: it is snapped to that frame.
        """
        frame = self.frame_at_ticks(Fraction(offset_ns * self.timescale, NS_PER_SECOND))
        following = frame + 1
        if offset_ns % NS_PER_US or following >= self.frame_count:
            return frame
        cut_down_us = self.pts(following) * US_PER_SECOND // self.timescale
        return following if cut_down_us * NS_PER_US <= offset_ns else frame

    def ns(self, frame: int) -> int:
        """When `frame` is first shown, in nanoseconds rounded up; `frame_at` of it is `frame` again."""
        return ticks_to_ns_up(self.pts(frame), self.timescale)

    def part(self, start: int, stop: int) -> tuple[FrameRun, ...]:
        """The run lengths of the frames `start` ≤ frame < `stop`."""
        if not 0 <= start <= stop <= self.frame_count:
            raise IndexError(f"frames {start} to {stop} of {self.frame_count}")
        found = []
        for first, run in zip(self._starts[0], self.runs, strict=False):
            count = min(stop, first + run.count) - max(start, first)
            if count > 0:
                found.append(FrameRun(count=count, duration_ticks=run.duration_ticks, held=run.held))
        return tuple(found)

    def picture_frame(self, frame: int) -> int:
        """The frame with which the picture on show in `frame` begins; `frame` itself unless it is held."""
        run = bisect_right(self._starts[0], frame) - 1
        if not self.runs[run].held:
            return frame
        while self.runs[run].held:
            run -= 1
        return self._starts[0][run + 1] - 1

    def pictures(self, start: int, stop: int) -> list[int]:
        """How often each picture on show in `start` ≤ frame < `stop` is shown there, in order."""
        shown: list[int] = []
        for run in self.part(start, stop):
            if not run.held:
                shown += [1] * run.count
            elif shown:
                shown[-1] += run.count
            else:
                shown.append(run.count)
        return shown

    def reorder_ticks(self, frames: int) -> int:
        """The longest time that `frames` consecutive frames last: a decode delay that always suffices."""
        starts = list(self.all_pts())
        starts.append(self.duration_ticks)
        last = len(starts) - 1
        return max((starts[min(i + frames, last)] - at for i, at in enumerate(starts)), default=0)


def split_evenly(ticks: int, parts: int) -> list[int]:
    """`parts` whole numbers of ticks that differ by one at most and add up to `ticks`, longest first."""
    each, rest = divmod(ticks, parts)
    return [each + 1] * rest + [each] * (parts - rest)


def with_held_frames(timeline: Timeline, longest_ticks: int) -> Timeline:
    """The same pictures, those that stand for longer than `longest_ticks` shown again and again."""
    runs: list[FrameRun] = []
    for run in timeline.runs:
        parts = -(-run.duration_ticks // longest_ticks)
        if parts == 1:
            runs.append(run)
            continue
        first, *again = split_evenly(run.duration_ticks, parts)
        held = [
            FrameRun(count=one.count, duration_ticks=one.duration_ticks, held=True)
            for one in run_lengths(again)
        ]
        one = [FrameRun(count=1, duration_ticks=first, held=run.held), *held]
        runs += one * run.count
    return Timeline(timescale=timeline.timescale, runs=tuple(runs))


def segment_of(starts: Sequence[int], ticks: int | Fraction) -> int:
    """The index of the segment that shows `ticks`, `starts` being the rising starts in the same ticks."""
    if not starts:
        raise ValueError("there are no segments")
    return max(bisect_right(starts, ticks) - 1, 0)
