"""From what the shut-in reader saw to a report: which track, which timeline, what will be done to it."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from services.media import sandbox
from services.media.child import SOURCE_FD
from services.media.containers import COARSE, FORMATS
from services.media.errors import (
    EncoderFailed,
    EncoderStalled,
    MediaError,
    SourceHasNoVideo,
    SourceNotMedia,
    SourceTruncated,
    SourceUnsupported,
)
from services.media.languages import language_tag
from services.media.time import NS_PER_SECOND, FrameRun, Timeline, ticks_to_ns_up, with_held_frames
from services.preprocessor.model import (
    Chapter,
    Probe,
    SourceAudio,
    SourceReport,
    SourceText,
    SourceVideo,
)
from services.preprocessor.sniff import sniff
from services.preprocessor.treatments import Lengths, treatments

CHILD = str(Path(__file__).with_name("probe_child.py"))
SMALLEST_SIDE, LARGEST_SIDE = 16, 8192
MAX_FPS = 240
#: Text as decoders name it that is characters, not pictures of them.
TEXT_CODECS = frozenset(
    {
        "subrip",
        "srt",
        "ass",
        "ssa",
        "mov_text",
        "webvtt",
        "text",
        "microdvd",
        "subviewer",
        "sami",
        "realtext",
        "stl",
    }
)
#: The longest title.
MOST_SECONDS = 24 * 3600
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
    coarse = sorted(COARSE) if deep else None
    command = sandbox.Command(
        # Isolated, and no compiled files: the child can neither import nor write anything of ours.
        argv=[sys.executable, "-I", "-B", CHILD, str(SOURCE_FD), ",".join(FORMATS), json.dumps(coarse)],
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
    fitting = [(off, rate) for rate in rates if (off := _off(rough, rate)) is not None]
    if not fitting:
        return rough
    return Timeline.constant(fps=min(fitting)[1], frame_count=rough.frame_count)


def _off(rough: Timeline, rate: Fraction) -> Fraction | None:
    """How many ticks the times are off a constant rate at most; None where it is more than one."""
    if not 0 < rate <= MAX_FPS:
        return None
    # Whole numbers of a fraction of a tick: fractions would take seconds for a long film.
    tick, period, most = rate.numerator, rough.timescale * rate.denominator, 0
    for frame, at in enumerate(rough.all_pts()):
        most = max(most, abs(at * tick - frame * period))
        if most > tick:
            return None
    return Fraction(most, tick)


def _rational(pair: Sequence[int]) -> Fraction:
    return Fraction(pair[0], pair[1])


def _display_size(facts: dict[str, Any]) -> tuple[int, int]:
    """Width and height with square pixels, upright."""
    aspect = _rational(facts["sample_aspect"]) or Fraction(1)
    width, height = round(facts["width"] * aspect), facts["height"]
    return (height, width) if facts["rotation"] in (90, 270) else (width, height)


def _check_size(facts: dict[str, Any]) -> None:
    width, height = _display_size(facts)
    if (
        min(width, height) < SMALLEST_SIDE
        or max(width, height, facts["width"], facts["height"]) > LARGEST_SIDE
    ):
        raise SourceUnsupported(problem=f"its picture is {width}x{height}")


def _check_times(facts: dict[str, Any], timeline: Timeline) -> None:
    if Fraction(timeline.frame_count * timeline.timescale, timeline.duration_ticks) > MAX_FPS:
        raise SourceUnsupported(problem=f"it has more than {MAX_FPS} frames a second")
    if facts["first_decoded_pts"] != facts["first_pts"]:
        raise SourceUnsupported(
            problem=f"its first frame is at {facts['first_decoded_pts']}, its index says {facts['first_pts']}"
        )


def _video(facts: dict[str, Any], rate: Fraction | None, frame_count: int) -> SourceVideo:
    """The picture track; `rate` is None where frames last differently long."""
    width, height = _display_size(facts)
    nominal = rate or _rational(facts["average_rate"]) or _rational(facts["base_rate"])
    if not nominal and frame_count:
        nominal = Fraction(frame_count * 1_000_000, max(facts["duration_us"], 1))
    return SourceVideo(
        stream_index=facts["stream_index"],
        codec=facts["codec"],
        width=facts["width"],
        height=facts["height"],
        display_width=width,
        display_height=height,
        rotation_degrees=facts["rotation"],
        frame_rate=nominal.limit_denominator(1_000_000),
        variable_frame_rate=rate is None,
        pixel_format=facts["pixel_format"],
        interlaced=facts["interlaced"] or facts.get("interlaced_end", False),
        frame_count=frame_count,
        time_base=_rational(facts["time_base"]),
        first_pts=facts.get("first_pts", facts["first_decoded_pts"]),
        container_start_us=facts["container_start_us"],
        decode_delay_ticks=0,
        color_primaries=facts["primaries"],
        color_transfer=facts["transfer"],
        color_matrix=facts["matrix"],
        full_range=bool(facts["full_range"]),
        longest_key_distance_ticks=facts.get("key_distance", 0),
        open_gop=facts.get("open_gop", False),
        exact_seeks=facts.get("exact_seeks", False),
    )


def _audios(facts: dict[str, Any]) -> tuple[SourceAudio, ...]:
    return tuple(
        SourceAudio(
            stream_index=one["stream_index"],
            codec=one["codec"],
            sample_rate_hz=one["sample_rate"],
            channel_count=one["channels"],
            language=language_tag(one["language"]),
            default=one["default"],
        )
        for one in facts["audios"]
        if one["sample_rate"] > 0 and one["channels"] > 0
    )


def _texts(facts: dict[str, Any]) -> tuple[list[SourceText], list[SourceText]]:
    """The tracks of text, and those that hold pictures of text."""
    found = [SourceText(**one | {"language": language_tag(one["language"])}) for one in facts["texts"]]
    return [one for one in found if one.codec in TEXT_CODECS], [
        one for one in found if one.codec not in TEXT_CODECS
    ]


def _chapters(facts: dict[str, Any], duration_ns: int) -> tuple[Chapter, ...]:
    """The chapters on the title's time axis; what lies outside is left out."""
    zero = facts["first_pts"] * _rational(facts["time_base"])
    found = []
    for one in facts["chapters"]:
        start, end = (math.ceil((_rational(one[edge]) - zero) * NS_PER_SECOND) for edge in ("start", "end"))
        start, end = max(start, 0), min(end, duration_ns)
        if start < end:
            found.append(Chapter(start_ns=start, end_ns=end, name=one["name"]))
    return tuple(sorted(found, key=lambda chapter: chapter.start_ns))


def _lengths(facts: dict[str, Any], timeline: Timeline) -> Lengths:
    zero = facts["first_pts"] * _rational(facts["time_base"])
    return Lengths(
        picture_end=Fraction(timeline.duration_ticks, timeline.timescale),
        longest_picture=Fraction(max(run.duration_ticks for run in timeline.runs), timeline.timescale),
        sounds={
            one["stream_index"]: (_rational(one["start"]) - zero, _rational(one["end"]) - zero)
            for one in facts["audios"]
            if one["start"] is not None
        },
    )


def presented(timeline: Timeline, hold: Fraction) -> Timeline:
    """What is shown: the source's pictures, the last held for `hold` seconds more, none standing too long.

    Raises `SourceUnsupported` when that comes to too many frames.
    """
    last = timeline.runs[-1].duration_ticks
    more = math.ceil(hold * timeline.timescale / last)
    if more:
        held = FrameRun(count=more, duration_ticks=last, held=True)
        timeline = Timeline(timescale=timeline.timescale, runs=(*timeline.runs, held))
    if timeline.duration_ticks > MOST_SECONDS * timeline.timescale:
        raise SourceUnsupported(problem=f"it lasts longer than {MOST_SECONDS // 3600} hours")
    return with_held_frames(timeline, max(timeline.timescale // 2, 1))


async def inspect(path: Path) -> SourceReport:
    """What a file is, from its headers and first frames; raises like `probe`."""
    sniff(path)
    facts = await _facts(path, deep=False)
    _check_size(facts)
    rate = _rational(facts["average_rate"]) or _rational(facts["base_rate"]) or Fraction(1)
    video, audios = _video(facts, rate, facts["announced_frames"]), _audios(facts)
    texts, drawn = _texts(facts)
    return SourceReport(
        container=facts["container"],
        duration_ns=facts["duration_us"] * 1000,
        video=video,
        audios=audios,
        treatments=treatments(video, audios, texts, drawn, None),
        texts=tuple(texts),
    )


async def probe(path: Path) -> Probe:
    """What a file is and when each of its frames is shown.

    Its last pictures are decoded, to see that they are there.
    Raises `SourceEmpty`, `SourceIsPlaylist`, `SourceNotMedia`, `SourceTruncated`, `SourceHasNoVideo`,
    `SourceUnsupported`, or what the sandbox raises.
    """
    sniff(path)
    facts = await _facts(path, deep=True)
    # Hundreds of thousands of frames are no work for the loop, on which leases are renewed.
    return await asyncio.to_thread(_probe, facts)


def _probe(facts: dict[str, Any]) -> Probe:
    _check_size(facts)
    tick = _rational(facts["time_base"])
    runs = [
        FrameRun(count=count, duration_ticks=duration * tick.numerator) for count, duration in facts["runs"]
    ]
    rates = [_rational(facts["average_rate"]), _rational(facts["base_rate"]), *USUAL_RATES]
    pictures = exact_timeline(tick.denominator, runs, rates)
    _check_times(facts, pictures)
    lengths = _lengths(facts, pictures)
    timeline = presented(pictures, lengths.picture_hold)
    video, audios = _video(facts, pictures.constant_rate, timeline.frame_count), _audios(facts)
    video = replace(video, decode_delay_ticks=timeline.reorder_ticks(REORDERED_FRAMES))
    texts, drawn = _texts(facts)
    duration_ns = ticks_to_ns_up(timeline.duration_ticks, timeline.timescale)
    report = SourceReport(
        container=facts["container"],
        duration_ns=duration_ns,
        video=video,
        audios=audios,
        treatments=treatments(video, audios, texts, drawn, lengths),
        texts=tuple(texts),
        chapters=_chapters(facts, duration_ns),
    )
    return Probe(report=report, timeline=timeline)
