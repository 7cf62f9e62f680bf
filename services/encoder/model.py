"""What an encoder is asked to do and what it hands back: plain values and the rules between them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate

from services.media.cmaf import Fragment
from services.media.time import FrameRun, Timeline

#: The longest stretch that a player has to decode and drop before the frame it wants.
SYNC_SECONDS = 2


class VideoCodec(enum.StrEnum):
    """How pictures are coded; the value begins the rendition's id."""

    H264 = "h264"
    AV1 = "av1"
    HEVC = "hevc"

    @property
    def reorders(self) -> bool:
        """Whether pictures are coded in another order than shown; AV1 hides that in its temporal units."""
        return self is not VideoCodec.AV1


class AudioCodec(enum.StrEnum):
    """How sound is coded; the value begins the rendition's id."""

    AAC = "aac"
    OPUS = "opus"


@dataclass(frozen=True, kw_only=True)
class SourceClock:
    """How the source's clock relates to the title's timeline."""

    #: Index of the picture stream in the container.
    stream_index: int
    #: Seconds per tick of that stream.
    time_base: Fraction
    #: When the first presented frame is shown, in ticks of the stream: zero of the timeline.
    first_pts: int
    #: The container's first time stamp: what FFmpeg counts a seek from.
    container_start_us: int
    #: Nominal frames per second.
    frame_rate: Fraction
    #: How much earlier than the frame wanted a seek has to go.
    run_up_seconds: int = 1
    #: Whether a seek to a moment lands on the key frame shown last until then: it needs no run-up.
    exact_seeks: bool = False

    @property
    def zero(self) -> Fraction:
        """Zero of the timeline on the container's clock, in seconds."""
        return self.first_pts * self.time_base


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of the timeline that becomes one segment."""

    number: int
    start_ticks: int
    timescale: int
    runs: tuple[FrameRun, ...]
    #: How long the frame before the picture that it begins with lasts; 0 when that is the source's first.
    previous_frame_ticks: int
    #: The constant decode delay of the title's reordering codecs, in ticks.
    decode_delay_ticks: int
    #: How long the source has been holding the picture that it begins with.
    held_ticks: int = 0

    @property
    def frame_count(self) -> int:
        """How many frames it has."""
        return sum(run.count for run in self.runs)

    @property
    def pictures(self) -> list[int]:
        """How often each of the source's pictures is shown in it, in order."""
        return Timeline(timescale=self.timescale, runs=self.runs).pictures(0, self.frame_count)

    @property
    def durations(self) -> list[int]:
        """How long each frame lasts, in ticks."""
        return [run.duration_ticks for run in self.runs for _ in range(run.count)]

    @property
    def pts(self) -> list[int]:
        """When each frame is shown, in ticks from the timeline's zero."""
        return list(accumulate(self.durations[:-1], initial=self.start_ticks))

    @property
    def duration_ticks(self) -> int:
        """How long it lasts."""
        return sum(run.count * run.duration_ticks for run in self.runs)

    def part(self, start: int, stop: int) -> Chunk:
        """The frames `start` ≤ frame < `stop` as a chunk of its own."""
        line = Timeline(timescale=self.timescale, runs=self.runs)
        at, shown = line.pts(start), line.pictures(0, start + 1)
        first = start + 1 - shown[-1]
        begins = line.pts(first)
        return replace(
            self,
            start_ticks=self.start_ticks + at,
            runs=line.part(start, stop),
            previous_frame_ticks=begins - line.pts(first - 1) if first else self.previous_frame_ticks,
            held_ticks=at - begins + (0 if first else self.held_ticks),
        )

    @property
    def sync_frames(self) -> list[int]:
        """The frames, from the chunk's first, that begin a fragment: even parts of at most two seconds.

        They follow from the chunk alone, so all renditions have them at the same times.
        """
        pts, limit = self.pts, SYNC_SECONDS * self.timescale
        parts = -(-self.duration_ticks // limit)
        wanted = [self.start_ticks + Fraction(self.duration_ticks * part, parts) for part in range(parts)]
        found: list[int] = [0]
        for index, at in enumerate(pts):
            following = pts[index + 1] if index + 1 < len(pts) else self.start_ticks + self.duration_ticks
            # The last frame at or before each wanted point, and earlier where waiting would pass the limit.
            due = len(found) < parts and at <= wanted[len(found)] < following
            late = following - pts[found[-1]] > limit
            if index > found[-1] and (due or late):
                found.append(index)
        return found


@dataclass(frozen=True, kw_only=True)
class VideoRung:
    """A rendition of pictures to make."""

    rendition_id: str
    width: int
    height: int
    #: Constant rate factor on the codec's own scale.
    crf: float
    max_bits_per_second: int


@dataclass(frozen=True, kw_only=True)
class AudioRung:
    """A rendition of sound to make."""

    rendition_id: str
    stream_index: int
    codec: AudioCodec
    bits_per_second: int
    sample_rate_hz: int = 48_000
    channel_count: int = 2
    #: BCP 47, `und` when not known.
    language: str = "und"


@dataclass(frozen=True, kw_only=True)
class SoundSpan:
    """Which segments of a sound track to make: those from `first_segment` on whose starts are known."""

    #: Starts of all segments from the timeline's zero to `end`, in seconds.
    starts: tuple[Fraction, ...]
    end: Fraction
    first_segment: int = 0
    #: Whether the title goes on after `end`.
    goes_on: bool = False


class Metric(enum.Enum):
    """How likeness to the source is measured."""

    VMAF = "vmaf"
    SSIM = "ssim"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Measured likeness to what went into the encoder, over one fragment."""

    metric: Metric
    mean: float
    #: The worst frame measured.
    least: float


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One finished segment; presentation times in ticks of the rendition, on the title's timeline."""

    number: int
    start_ticks: int
    duration_ticks: int
    data: bytes
    sha256: bytes
    fragments: tuple[Fragment, ...]
    quality: Quality | None = None


@dataclass(frozen=True, kw_only=True)
class Rendition:
    """Segments of one rendition with what they share."""

    rendition_id: str
    init: bytes
    #: Codec string for players (RFC 6381).
    codecs: str
    timescale: int
    #: Ticks that the init segment's edit list takes off decode times.
    media_time: int
    segments: Sequence[Segment]
