"""Titles made up for tests; nothing is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from services.media.time import Timeline
from services.playback.model import (
    AudioCodec,
    AudioTrack,
    Fragment,
    Rendition,
    Segment,
    TitleMedia,
    VideoCodec,
    VideoTrack,
)

RATE = Fraction(30000, 1001)
#: 12.012 s in segments of 4.004 s, each of two fragments.
FILM = Timeline.constant(fps=RATE, frame_count=360)
STARTS = tuple(FILM.pts(frame) for frame in (0, 120, 240))


def video(rendition_id: str, ready: int = 3, **fields: Any) -> Rendition:
    """`h264-720`: codec and height are read out of the id."""
    codec, height = rendition_id.split("-")
    size = int(height)
    track = VideoTrack(codec=VideoCodec[codec.upper()], width=size * 16 // 9, height=size, frame_rate=RATE)
    codecs = {"h264": "avc1.64001f", "av1": "av01.0.05M.08"}[codec]
    return rendition(rendition_id, track, codecs, 30000, ready, size * 4000, size * 3000, **fields)


def audio(rendition_id: str, ready: int = 3, channel_count: int = 2, **fields: Any) -> Rendition:
    """`aac-128-eng-0`: codec and language are read out of the id."""
    codec, _, language, _ = rendition_id.split("-")
    track = AudioTrack(
        codec=AudioCodec[codec.upper()], sample_rate_hz=48000, channel_count=channel_count, language=language
    )
    codecs = {"aac": "mp4a.40.2", "opus": "opus"}[codec]
    return rendition(rendition_id, track, codecs, 48000, ready, 132_000, 128_000, **fields)


def rendition(
    rendition_id: str,
    track: VideoTrack | AudioTrack,
    codecs: str,
    timescale: int,
    ready: int,
    peak: int,
    mean: int,
    **fields: Any,
) -> Rendition:
    """A rendition; complete when all three segments are ready."""
    return Rendition(
        rendition_id=rendition_id,
        track=track,
        codecs=codecs,
        timescale=timescale,
        init_key=f"media/{rendition_id}/init.mp4",
        init_sha256=bytes(32),
        peak_bits_per_second=peak,
        mean_bits_per_second=mean,
        ready_segment_count=ready,
        **{"complete": ready == 3, **fields},
    )


def title(renditions: Sequence[Rendition], **fields: Any) -> TitleMedia:
    """A title of these renditions."""
    complete = all(r.complete for r in renditions)
    values = {
        "title": "titles/film",
        "job": "jobs/one",
        "owner": "users/publisher",
        "shown": True,
        "complete": complete,
        "timeline": FILM,
        "segment_starts": STARTS,
        "planned": True,
        "renditions": tuple(renditions),
        "playable_time": datetime(2026, 1, 1, tzinfo=UTC),
        "message": None,
    }
    return TitleMedia(**{**values, **fields})


def segments(rendition: Rendition) -> list[Segment]:
    """The ready segments; sound begins with one access unit before the grid, as after priming."""
    found = []
    ends = [*STARTS[1:], FILM.duration_ticks]
    early = 0 if rendition.video else 1024
    for number in range(rendition.ready_segment_count):
        start, end = (edge[number] * rendition.timescale // 30000 - early for edge in (STARTS, ends))
        half = (end - start) // 2
        found.append(
            Segment(
                number=number,
                start_ticks=start,
                duration_ticks=end - start,
                object_key=f"media/{rendition.rendition_id}/{number}",
                size_bytes=2000,
                sha256=bytes(32),
                fragments=(
                    Fragment(0, 900, start, half),
                    Fragment(900, 1100, start + half, end - start - half),
                ),
            )
        )
    return found
