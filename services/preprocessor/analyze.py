"""One FFmpeg pass over a window: shots, motion and loudness, and proof that its frames are as probed."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean

from services.media import sandbox
from services.media.containers import run_up_seconds
from services.media.errors import SourceChanged
from services.media.scratch import Scratch
from services.media.time import Timeline
from services.preprocessor.model import Analysis, Feature, SourceReport, Window

#: scdet's score from which a frame begins a shot (its own default; it found all nine cuts it was measured
#: on).
SHOT_SCORE = 10.0
#: A flash changes back at once: the frame after it differs nearly as much as the flash itself did.
FLASH_SHARE = 0.7
SILENCE_LUFS = -70.0
ANALYSIS_LIMITS = sandbox.Limits(file_bytes=32 << 20)

_PTS = re.compile(r"pts:\s*(-?\d+)")


@dataclass(frozen=True)
class _Frame:
    """What scdet says of one frame: its time in ticks, and its difference to the one before."""

    pts: int
    difference: float
    score: float


def with_context(timeline: Timeline, window: Window) -> Window:
    """The window and the picture before it, without which its first frames could not be judged."""
    start = timeline.picture_frame(max(window.start_frame - 1, 0))
    return Window(start_frame=start, frame_count=window.end_frame - start)


def _cut_point(report: SourceReport, timeline: Timeline, window: Window) -> Fraction:
    """Where a window begins on the container's clock: half-way into the frame before, safe from rounding."""
    around = timeline.pts(window.start_frame) + timeline.pts(window.start_frame - 1)
    return _zero(report) + Fraction(around, 2 * timeline.timescale)


def _input(report: SourceReport, timeline: Timeline, window: Window) -> list[str]:
    argv = ["-threads", "1"]
    if window.start_frame > 0:
        # A seek counts from the container's start. It takes a run-up, and the graph drops what is too early.
        start = _cut_point(report, timeline, window) - Fraction(report.video.container_start_us, 1_000_000)
        start -= run_up_seconds(report.container, report.video.longest_key_distance_s)
        argv += ["-noaccurate_seek", "-ss", f"{float(max(start, Fraction(0))):.6f}"]
    return [*argv, "-copyts", *sandbox.INPUT_FLAGS]


def _zero(report: SourceReport) -> Fraction:
    return report.video.first_pts * report.video.time_base


def _video_chain(report: SourceReport, timeline: Timeline, window: Window) -> str:
    video = report.video
    filters = []
    if window.start_frame > 0:
        filters.append(f"trim=start={float(_cut_point(report, timeline, window)):.6f}")
    filters += [
        # The source's own ticks from the timeline's zero, to be compared with the probe's.
        f"settb={video.time_base.numerator}/{video.time_base.denominator}",
        f"setpts=PTS-({video.first_pts})",
        # Enough to see a cut by, and cheap.
        "scale=320:-2:flags=fast_bilinear",
        f"scdet=threshold={SHOT_SCORE:g}",
        "metadata=mode=print:file=video.txt",
    ]
    return f"[0:{video.stream_index}]{','.join(filters)}[v]"


def _audio_chain(report: SourceReport, timeline: Timeline, window: Window) -> str | None:
    audio = next((one for one in report.audios if one.default), next(iter(report.audios), None))
    if audio is None:
        return None
    start, end = (
        float(Fraction(timeline.pts(f), timeline.timescale)) for f in (window.start_frame, window.end_frame)
    )
    filters = [
        f"asetpts=PTS-({float(_zero(report)):.6f})/TB",
        f"atrim=start={start:.6f}:end={end:.6f}",
        # Loudness over the last 400 ms, ten times a second.
        "ebur128=metadata=1",
        "ametadata=mode=print:file=audio.txt:key=lavfi.r128.M",
    ]
    return f"[0:{audio.stream_index}]{','.join(filters)}[a]"


def _pictures(timeline: Timeline, window: Window) -> list[int]:
    """The frames of the window that the source really has: held ones are those before them once more."""
    shown = timeline.pictures(window.start_frame, window.end_frame)
    return list(accumulate(shown[:-1], initial=window.start_frame))


def analyze_command(report: SourceReport, timeline: Timeline, window: Window) -> list[str]:
    """Measures one window; what is found goes to `video.txt` and `audio.txt`, progress to standard output."""
    sound = _audio_chain(report, timeline, window)
    seen = with_context(timeline, window)
    graph = [_video_chain(report, timeline, seen), *([sound] if sound else [])]
    argv = [sandbox.ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error"]
    argv += ["-progress", "pipe:1", "-stats_period", "0.5"]
    argv += _input(report, timeline, seen)
    argv += ["-filter_complex_threads", "1", "-filter_complex", ";".join(graph)]
    # Count frames, which no rounding can move, and never drop or repeat one.
    argv += ["-map", "[v]", "-frames:v", str(len(_pictures(timeline, seen))), "-fps_mode", "passthrough"]
    argv += ["-f", "null", "-"]
    if sound:
        argv += ["-map", "[a]", "-f", "null", "-"]
    return argv


def _records(text: str) -> Iterator[tuple[int, dict[str, float]]]:
    """The metadata filter's frames: time stamp and values."""
    pts: int | None = None
    values: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("frame:"):
            if pts is not None:
                yield pts, values
            match = _PTS.search(line)
            pts, values = int(match[1]) if match else 0, {}
        elif line.startswith("lavfi."):
            key, _, value = line.partition("=")
            try:
                values[key] = float(value)
            except ValueError:
                continue
    if pts is not None:
        yield pts, values


def shots(frames: Sequence[tuple[float, float]]) -> list[int]:
    """Indexes of frames that begin a shot, given each frame's difference and score; flashes are none.

    The first frame is context and the second begins the window, which is no change of shot in it.
    """
    found = []
    for index, (difference, score) in enumerate(frames):
        following = frames[index + 1][0] if index + 1 < len(frames) else 0.0
        if index > 1 and score >= SHOT_SCORE and following < FLASH_SHARE * difference:
            found.append(index)
    return found


def _stretches(timeline: Timeline, window: Window) -> list[tuple[int, int]]:
    """The window in stretches of a second, in frames; a short rest joins the last."""
    start, end = timeline.pts(window.start_frame), timeline.pts(window.end_frame)
    count = max(1, round(Fraction(end - start, timeline.timescale)))
    edges = [timeline.frame_at_ticks(start + k * timeline.timescale) for k in range(count)]
    return list(pairwise([*sorted({window.start_frame, *edges}), window.end_frame]))


def _features(
    timeline: Timeline,
    window: Window,
    motion: Sequence[float],
    cuts: Sequence[int],
    loudness: Sequence[tuple[float, float]],
) -> tuple[Feature, ...]:
    times = [at for at, _ in loudness]
    made = []
    for first, last in _stretches(timeline, window):
        start, end = timeline.pts(first), timeline.pts(last)
        low, high = (bisect_left(times, edge / timeline.timescale) for edge in (start, end))
        heard = [level for _, level in loudness[low:high]]
        made.append(
            Feature(
                start_ticks=start,
                duration_ticks=end - start,
                motion=round(fmean(motion[first - window.start_frame : last - window.start_frame]), 3),
                shot_change_count=bisect_left(cuts, last) - bisect_left(cuts, first),
                loudness_lufs=round(fmean(heard), 1) if heard else SILENCE_LUFS,
            )
        )
    return tuple(made)


def _check_frames(report: SourceReport, timeline: Timeline, window: Window, frames: Sequence[_Frame]) -> None:
    """Every decoded frame must be where the probe saw its packet, to the tick of the container's clock."""
    expected = _pictures(timeline, window)
    if len(frames) != len(expected):
        raise SourceChanged(
            problem=f"{len(frames)} of {len(expected)} frames from frame {window.start_frame} on decode"
        )
    per_tick = Fraction(1, timeline.timescale) / report.video.time_base
    slack = 0 if report.video.time_base * timeline.timescale == 1 else 1
    for number, frame in zip(expected, frames, strict=True):
        if abs(frame.pts - timeline.pts(number) * per_tick) > slack:
            raise SourceChanged(problem=f"frame {number} decodes at tick {frame.pts} of its track")


async def analyze(
    path: Path,
    report: SourceReport,
    timeline: Timeline,
    window: Window,
    *,
    report_share: Callable[[float], None] = lambda share: None,
    scratch: Scratch | None = None,
) -> Analysis:
    """Shots and features of one window; raises `SourceChanged` where frames do not decode as probed."""
    async with (scratch or Scratch()).folder("analyze", 2 * ANALYSIS_LIMITS.file_bytes) as folder:
        command = sandbox.Command(
            argv=analyze_command(report, timeline, window),
            source=path,
            scratch=folder,
            limits=ANALYSIS_LIMITS,
        )
        counter = sandbox.FrameCounter(len(_pictures(timeline, with_context(timeline, window))), report_share)
        await sandbox.run(command, counter.feed)
        return await asyncio.to_thread(_read, folder, report, timeline, window)


def _read(folder: Path, report: SourceReport, timeline: Timeline, window: Window) -> Analysis:
    video = (folder / "video.txt").read_text() if (folder / "video.txt").exists() else ""
    frames = [
        _Frame(pts, values.get("lavfi.scd.mafd", 0.0), values.get("lavfi.scd.score", 0.0))
        for pts, values in _records(video)
    ]
    seen = with_context(timeline, window)
    numbers = _pictures(timeline, seen)
    frames = frames[: len(numbers)]
    _check_frames(report, timeline, seen, frames)
    found = shots([(frame.difference, frame.score) for frame in frames])
    cuts = [numbers[index] for index in found]
    loudness = _loudness(folder / "audio.txt")
    # A picture that is held doesn't move.
    motion = [0.0] * window.frame_count
    for number, frame in zip(numbers, frames, strict=True):
        if number >= window.start_frame:
            motion[number - window.start_frame] = frame.difference
    return Analysis(
        shot_change_frames=tuple(cuts), features=_features(timeline, window, motion, cuts, loudness)
    )


def _loudness(path: Path) -> list[tuple[float, float]]:
    """Seconds on the timeline and momentary loudness, in order."""
    if not path.exists():
        return []
    found = []
    seconds = 0.0
    for line in path.read_text().splitlines():
        if line.startswith("frame:"):
            seconds = float(line.rpartition("pts_time:")[2])
        elif line.startswith("lavfi.r128.M="):
            level = float(line.partition("=")[2])
            found.append((seconds, max(level, SILENCE_LUFS)))
    return found
