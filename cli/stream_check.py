"""Judges a received stream by its frames: numbers, presentation times, trim, and beeps against flashes.

The stream is decoded with the edit lists and the codecs' own skipping switched off, so that nothing a server
sent in vain, or failed to announce, is trimmed away before it is looked at.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import av.codec.context
import numpy as np

from kino.playback.v1.resources_pb2 import PlayHeader
from services.media import bmff
from services.media.testfilm import (
    SAMPLE_RATE,
    FilmSpec,
    Sound,
    find_beeps,
    find_flashes,
    picture_level,
    read_frame_number,
)
from services.runtime.errors import FailedPrecondition

#: The most that a beep may lie before or after its flash.
SYNC_TOLERANCE_S = 0.010
_EDGE_S = Fraction(1, 5)


class CheckFailed(FailedPrecondition):
    """{what}: expected {expected}, got {found}."""

    reason = "CHECK_FAILED"
    fields = ("what", "expected", "found")


def check(what: str, expected: object, found: object) -> None:
    """Raise `CheckFailed` unless `found` equals `expected`."""
    if expected != found:
        raise CheckFailed(what, str(expected)[:200], str(found)[:200])


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One decoded frame: the number it carries, when it is shown on the source timeline, its brightness."""

    number: int | None
    time: Fraction
    level: float


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Everything in a received stream, nothing trimmed; times in seconds of the source timeline."""

    pictures: Sequence[Picture]
    sound_start: Fraction
    sound_end: Fraction
    beeps: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a good stream was like."""

    frame_count: int
    first_frame: int
    #: The frame that the header's trim leads to.
    wanted_frame: int
    #: Flashes that had their beep, and the greatest distance between the two; None without sound.
    flash_count: int
    worst_sync_ms: float | None


def decode_stream(header: PlayHeader, data: bytes) -> Decoded:
    """Decode a stream as received: the combined init segment, then media as it came."""
    with_sound = bool(header.audio_init)
    pictures = _pictures(data, _delay(header.video_init))
    if not with_sound:
        return Decoded(pictures=pictures, sound_start=Fraction(0), sound_end=Fraction(0), beeps=())
    start, sound = _sound(data, _delay(header.audio_init))
    return Decoded(
        pictures=pictures,
        sound_start=start,
        sound_end=start + Fraction(len(sound), SAMPLE_RATE),
        beeps=[float(start) + at for at in find_beeps(sound)],
    )


def judge(film: FilmSpec, header: PlayHeader, decoded: Decoded, *, offset: Fraction | None) -> Verdict:
    """Check a stream of `film` that was asked for from `offset` seconds; None: from where the header says.

    Raises `CheckFailed` with the first thing that is wrong.
    """
    numbers = [picture.number for picture in decoded.pictures]
    first = numbers[0] if numbers else None
    if first is None:
        raise CheckFailed("The number on the first frame", "a number", "nothing that can be read")
    check("Frame numbers in a row", list(range(first, first + len(numbers))), numbers)
    frame_duration = 1 / film.fps
    for picture in decoded.pictures:
        check(f"Time of frame {picture.number}", (picture.number or 0) * frame_duration, picture.time)
    timeline = film.timeline
    if offset is not None:
        wanted = offset * film.fps // 1
        check("Frame the header names", wanted, header.frame_number)
    check("Frame the trim leads to", header.frame_number, numbers[header.trim_frame_count])
    check("Start of the media", timeline.ns(first), header.media_start.ToNanoseconds())
    check("Offset in the header", timeline.ns(header.frame_number), header.offset.ToNanoseconds())
    trim_ns = header.offset.ToNanoseconds() - header.media_start.ToNanoseconds()
    check("Trim in the header", trim_ns, header.trim.ToNanoseconds())
    flash_count, worst = _sync(decoded)
    return Verdict(
        frame_count=len(numbers),
        first_frame=first,
        wanted_frame=int(header.frame_number),
        flash_count=flash_count,
        worst_sync_ms=None if worst is None else worst * 1000,
    )


def _sync(decoded: Decoded) -> tuple[int, float | None]:
    """How many flashes have their beep, and the greatest distance; none may lack the other."""
    if not decoded.sound_end:
        return 0, None
    levels = [picture.level for picture in decoded.pictures]
    flashes = [float(decoded.pictures[index].time) for index in find_flashes(levels)]
    # Where one of the two is cut off by the edge of the stream there is nothing to compare.
    start = max(decoded.pictures[0].time, decoded.sound_start) + _EDGE_S
    end = min(decoded.pictures[-1].time, decoded.sound_end) - _EDGE_S
    flashes = [at for at in flashes if start <= at <= end]
    beeps = [at for at in decoded.beeps if start <= at <= end]
    check("Number of beeps", len(flashes), len(beeps))
    distances = [abs(flash - beep) for flash, beep in zip(flashes, beeps, strict=True)]
    worst = max(distances, default=0.0)
    if worst > SYNC_TOLERANCE_S:
        raise CheckFailed("Distance of beep and flash", "at most 10 ms", f"{worst * 1000:.1f} ms")
    return len(flashes), worst


def _delay(init: bytes) -> Fraction:
    """The decode delay or priming that a track's edit list announces, in seconds."""
    trak = bmff.find(init, b"moov", b"trak")
    return Fraction(bmff.media_time_of(init, trak), bmff.timescale_of(init, trak))


def _pictures(data: bytes, delay: Fraction) -> list[Picture]:
    pictures = []
    with av.open(io.BytesIO(data), "r", options={"ignore_editlist": "1"}) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            assert frame.pts is not None
            assert frame.time_base is not None
            gray = frame.to_ndarray(format="gray").astype(np.uint8)
            pictures.append(
                Picture(
                    number=read_frame_number(gray),
                    time=frame.pts * frame.time_base - delay,
                    level=picture_level(gray),
                )
            )
    return pictures


def _sound(data: bytes, delay: Fraction) -> tuple[Fraction, Sound]:
    """When the first sample sounds, and all samples in one channel at 48 kHz."""
    pieces: list[Sound] = []
    start: Fraction | None = None
    with av.open(io.BytesIO(data), "r", options={"ignore_editlist": "1"}) as container:
        stream = container.streams.audio[0]
        stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
        mono = av.AudioResampler("fltp", "mono", SAMPLE_RATE)
        for frame in container.decode(stream):
            assert frame.pts is not None
            assert frame.time_base is not None
            if start is None:
                start = frame.pts * frame.time_base - delay
            pieces += [piece.to_ndarray()[0] for piece in mono.resample(frame)]
    if start is None:
        raise CheckFailed("Sound in the stream", "some", "none")
    return start, np.concatenate(pieces)
