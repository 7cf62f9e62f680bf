"""From what the shut-in reader saw to a report: which track, which timeline, what will be done to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from services.media import sandbox
from services.media.child import SOURCE_FD
from services.media.containers import COARSE, FORMATS, run_up_seconds
from services.media.errors import (
    EncoderFailed,
    EncoderStalled,
    MediaError,
    SourceHasNoVideo,
    SourceNotMedia,
    SourceTruncated,
    SourceUnsupported,
)
from services.media.time import FrameRun, Timeline, ticks_to_ns_up
from services.preprocessor.model import Probe, SourceAudio, SourceReport, SourceVideo
from services.preprocessor.plan import LIMIT_SECONDS
from services.preprocessor.sniff import sniff

CHILD = str(Path(__file__).with_name("probe_child.py"))
SMALLEST_SIDE, LARGEST_SIDE = 16, 8192
MAX_FPS = 240
#: How many frames H.264 as encoded here reorders by.
REORDERED_FRAMES = 2
REFUSALS: dict[str, type[MediaError]] = {
    "SOURCE_NOT_MEDIA": SourceNotMedia,
    "SOURCE_TRUNCATED": SourceTruncated,
    "SOURCE_HAS_NO_VIDEO": SourceHasNoVideo,
    "SOURCE_UNSUPPORTED": SourceUnsupported,
}
#: Rates that coarse clocks are read as, besides what the container itself says.
USUAL_RATES = tuple(Fraction(n, d) for n in (24, 25, 30, 50, 60, 120) for d in (1,)) + tuple(
    Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)
)
PROBE_LIMITS = sandbox.Limits(
    memory_bytes=2 * sandbox.GIB, cpu_s=600, file_bytes=0, wall_s=900, stall_s=900, output_bytes=256 << 20
)


async def _facts(path: Path, *, deep: bool) -> dict[str, Any]:
    run_ups = {name: run_up_seconds(name) for name in ("", *sorted(COARSE))} if deep else None
    command = sandbox.Command(
        # Isolated, and no compiled files: the child can neither import nor write anything of ours.
        argv=[sys.executable, "-I", "-B", CHILD, str(SOURCE_FD), ",".join(FORMATS), json.dumps(run_ups)],
        source=path,
        read=[Path(CHILD), Path(sys.prefix), Path(sys.base_prefix)],
        limits=PROBE_LIMITS,
    )
    try:
        answer: dict[str, Any] = json.loads(await sandbox.output_of(command))
    except (EncoderFailed, EncoderStalled, ValueError) as error:
        stderr = error.details.get("stderr") if isinstance(error, MediaError) else str(error)
        raise SourceNotMedia(problem="reading it failed", stderr=stderr) from error
    refused = answer.get("refused")
    if refused is not None:
        raise REFUSALS[refused](problem=answer["problem"])
    return answer


def exact_timeline(timescale: int, runs: Sequence[FrameRun], rates: Sequence[Fraction]) -> Timeline:
    """The frames' true times.

    Where the container's clock is too coarse for a constant rate (Matroska counts milliseconds, MPEG-TS
    cannot halve its tick) its times wander around the rate by up to a tick; then the rate itself is the
    truth.
    """
    rough = Timeline(timescale=timescale, runs=tuple(runs))
    if rough.constant_rate is not None:
        return rough
    fitting = []
    for rate in rates:
        if 0 < rate <= MAX_FPS:
            period = timescale / rate
            off = max(abs(at - frame * period) for frame, at in enumerate(rough.all_pts()))
            fitting.append((off, rate))
    off, rate = min(fitting, default=(Fraction(2), Fraction(0)))
    return Timeline.constant(fps=rate, frame_count=rough.frame_count) if off <= 1 else rough


def _rational(pair: Sequence[int]) -> Fraction:
    return Fraction(pair[0], pair[1])


def _display_size(facts: dict[str, Any]) -> tuple[int, int]:
    """Width and height with square pixels, upright."""
    aspect = _rational(facts["sample_aspect"]) or Fraction(1)
    width, height = round(facts["width"] * aspect), facts["height"]
    return (height, width) if facts["rotation"] in (90, 270) else (width, height)


def _check(facts: dict[str, Any], timeline: Timeline) -> None:
    width, height = _display_size(facts)
    if (
        min(width, height) < SMALLEST_SIDE
        or max(width, height, facts["width"], facts["height"]) > LARGEST_SIDE
    ):
        raise SourceUnsupported(problem=f"its picture is {width}x{height}")
    longest = max(run.duration_ticks for run in timeline.runs)
    if longest > LIMIT_SECONDS * timeline.timescale:
        raise SourceUnsupported(problem=f"a single picture stands for {longest / timeline.timescale:.1f} s")
    if Fraction(timeline.frame_count * timeline.timescale, timeline.duration_ticks) > MAX_FPS:
        raise SourceUnsupported(problem=f"it has more than {MAX_FPS} frames a second")
    if facts["first_decoded_pts"] != facts["first_pts"]:
        raise SourceUnsupported(
            problem=f"its first frame is at {facts['first_decoded_pts']}, its index says {facts['first_pts']}"
        )


def _treatments(video: SourceVideo, audios: Sequence[SourceAudio]) -> tuple[str, ...]:
    said = []
    if video.rotation_degrees:
        said.append(
            f"The picture is turned clockwise by {video.rotation_degrees} degrees, as the file asks for."
        )
    coded = {video.width, video.height}
    if {video.display_width, video.display_height} != coded:
        said.append(f"Pixels are made square: {video.display_width}x{video.display_height}.")
    if video.interlaced:
        said.append("Interlaced pictures are made whole, one for each frame.")
    if video.variable_frame_rate:
        said.append("Frames last differently long; every one keeps its own time.")
    if not video.pixel_format.startswith(("yuv420p", "yuvj420p", "nv12")) or "10" in video.pixel_format:
        said.append(f"Pictures are turned from {video.pixel_format} into 8-bit 4:2:0.")
    if not audios:
        said.append("There is no sound.")
    said += [
        f"Sound track {audio.stream_index} is mixed from {audio.channel_count} channels to stereo."
        for audio in audios
        if audio.channel_count > 2
    ]
    return tuple(said)


def _report(facts: dict[str, Any], timeline: Timeline | None) -> SourceReport:
    width, height = _display_size(facts)
    average = _rational(facts["average_rate"]) or _rational(facts["base_rate"])
    constant = timeline.constant_rate if timeline else average
    if timeline is not None and not average:
        average = Fraction(timeline.frame_count * timeline.timescale, timeline.duration_ticks)
    duration_ns = (
        ticks_to_ns_up(timeline.duration_ticks, timeline.timescale)
        if timeline
        else facts["duration_us"] * 1000
    )
    video = SourceVideo(
        stream_index=facts["stream_index"],
        codec=facts["codec"],
        width=facts["width"],
        height=facts["height"],
        display_width=width,
        display_height=height,
        rotation_degrees=facts["rotation"],
        frame_rate=(constant or average).limit_denominator(1_000_000),
        variable_frame_rate=constant is None,
        pixel_format=facts["pixel_format"],
        interlaced=facts["interlaced"],
        frame_count=timeline.frame_count if timeline else facts["announced_frames"],
        time_base=_rational(facts["time_base"]),
        first_pts=facts["first_pts"] if timeline else facts["first_decoded_pts"],
        container_start_us=facts["container_start_us"],
        decode_delay_ticks=timeline.reorder_ticks(REORDERED_FRAMES) if timeline else 0,
    )
    audios = tuple(
        SourceAudio(
            stream_index=one["stream_index"],
            codec=one["codec"],
            sample_rate_hz=one["sample_rate"],
            channel_count=one["channels"],
            language=one["language"],
            default=one["default"],
        )
        for one in facts["audios"]
        if one["sample_rate"] > 0 and one["channels"] > 0
    )
    return SourceReport(
        container=facts["container"],
        duration_ns=duration_ns,
        video=video,
        audios=audios,
        treatments=_treatments(video, audios),
    )


async def inspect(path: Path) -> SourceReport:
    """What a file is, from its headers and first frames; raises like `probe`."""
    sniff(path)
    return _report(await _facts(path, deep=False), None)


async def probe(path: Path) -> Probe:
    """What a file is and when each of its frames is shown.

    Its last pictures are decoded, to see that they are there.
    Raises `SourceEmpty`, `SourceIsPlaylist`, `SourceNotMedia`, `SourceTruncated`, `SourceHasNoVideo`,
    `SourceUnsupported`, or what the sandbox raises.
    """
    sniff(path)
    facts = await _facts(path, deep=True)
    tick = _rational(facts["time_base"])
    runs = [
        FrameRun(count=count, duration_ticks=duration * tick.numerator) for count, duration in facts["runs"]
    ]
    rates = [_rational(facts["average_rate"]), _rational(facts["base_rate"]), *USUAL_RATES]
    timeline = exact_timeline(tick.denominator, runs, rates)
    _check(facts, timeline)
    return Probe(report=_report(facts, timeline), timeline=timeline)
