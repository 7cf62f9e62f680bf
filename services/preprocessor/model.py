"""What is known of a source, and what is planned for it: plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from fractions import Fraction

from services.media.time import Timeline


@dataclass(frozen=True, kw_only=True)
class SourceVideo:
    """The picture track that is used."""

    stream_index: int
    codec: str
    width: int
    height: int
    #: As it is to be shown, after rotation and with square pixels.
    display_width: int
    display_height: int
    #: Clockwise turn to apply: 0, 90, 180 or 270.
    rotation_degrees: int
    frame_rate: Fraction
    variable_frame_rate: bool
    pixel_format: str
    interlaced: bool
    frame_count: int
    #: Seconds per tick of the stream's own clock.
    time_base: Fraction
    #: When the first presented frame is shown, in ticks of `time_base`.
    first_pts: int
    container_start_us: int
    #: The longest that two consecutive frames last, in ticks of the timeline.
    decode_delay_ticks: int
    #: Colours by ITU-T H.273; 2 where the source doesn't say.
    color_primaries: int = 2
    color_transfer: int = 2
    color_matrix: int = 2
    full_range: bool = False
    #: In ticks of `time_base`.
    longest_key_distance_ticks: int = 0
    #: Whether pictures that follow a key frame in the file are shown before it.
    open_gop: bool = False
    #: Whether a seek to a moment lands on the key frame shown last until then.
    exact_seeks: bool = False

    @property
    def longest_key_distance_s(self) -> float:
        """The longest way from a key frame to the next, in seconds."""
        return float(self.longest_key_distance_ticks * self.time_base)

    @property
    def high_dynamic_range(self) -> bool:
        """Whether it is PQ (16) or HLG (18)."""
        return self.color_transfer in (16, 18)


@dataclass(frozen=True, kw_only=True)
class SourceAudio:
    """A sound track of the source."""

    stream_index: int
    codec: str
    sample_rate_hz: int
    channel_count: int
    #: BCP 47; `und` when not known.
    language: str
    default: bool


@dataclass(frozen=True, kw_only=True)
class SourceText:
    """A track of text of the source."""

    stream_index: int
    codec: str
    #: BCP 47; `und` when not known.
    language: str
    #: Name of the track; may be empty.
    label: str
    default: bool
    #: Whether it holds only what must be read by all.
    forced: bool


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A named part of the title, on its time axis."""

    start_ns: int
    end_ns: int
    name: str


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file in the origin."""

    object_key: str
    size_bytes: int
    sha256: bytes


class TreatmentKind(enum.Enum):
    """What is done to a source; see `Treatment.Kind` in the contract."""

    ROTATE = 1
    SQUARE_PIXELS = 2
    DEINTERLACE = 3
    TONE_MAP = 4
    CONVERT_COLOR = 5
    CONVERT_SAMPLES = 6
    SCALE = 7
    KEEP_VARIABLE_RATE = 8
    HOLD_PICTURE = 9
    EXTEND_PICTURE = 10
    PAD_SOUND = 11
    CUT_SOUND = 12
    DOWNMIX = 13
    DROP_TRACK = 14
    NO_SOUND = 15
    DECODE_FROM_FAR = 16


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """Something that is done to a source because of what it is."""

    kind: TreatmentKind
    #: A sentence with the figures.
    reason: str
    #: -1 where it concerns no single stream.
    stream_index: int = -1


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """What a source is and what will be done with it."""

    container: str
    duration_ns: int
    video: SourceVideo
    audios: tuple[SourceAudio, ...]
    #: What will be done and why.
    treatments: tuple[Treatment, ...]
    #: Tracks of text that can be turned into WebVTT.
    texts: tuple[SourceText, ...] = ()
    chapters: tuple[Chapter, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A source with all its frames."""

    report: SourceReport
    timeline: Timeline


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of the source that is analysed at once, in frames."""

    start_frame: int
    frame_count: int

    @property
    def end_frame(self) -> int:
        """The first frame after it."""
        return self.start_frame + self.frame_count


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What was measured of a stretch of about a second; times in ticks of the timeline."""

    start_ticks: int
    duration_ticks: int
    #: Mean difference between neighbouring frames, 0 to 100.
    motion: float
    shot_change_count: int
    #: Mean momentary loudness in LUFS (EBU R 128); -70 for silence or no sound.
    loudness_lufs: float


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What one window holds."""

    #: First frames of shots, the window's own start not counted.
    shot_change_frames: tuple[int, ...]
    features: tuple[Feature, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedChunk:
    """A stretch that becomes one segment in every rendition."""

    number: int
    start_frame: int
    frame_count: int
    start_ticks: int
    duration_ticks: int
    starts_on_shot_change: bool


class Origin(enum.Enum):
    """Where a highlight comes from."""

    GIVEN = "given"
    MEASURED = "measured"


@dataclass(frozen=True, kw_only=True)
class Highlight:
    """A passage worth showing first, on the source timeline."""

    start_ns: int
    end_ns: int
    origin: Origin
    #: Mean sum of standard scores; 0 for a given one.
    score: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class VideoRung:
    """A rendition of pictures to make."""

    rendition_id: str
    width: int
    height: int
    crf: float
    max_bits_per_second: int


@dataclass(frozen=True, kw_only=True)
class VideoLadder:
    """The rungs of one codec, largest first; all come from one decode."""

    codec: str
    rungs: tuple[VideoRung, ...]


@dataclass(frozen=True, kw_only=True)
class AudioRung:
    """A rendition of sound to make."""

    rendition_id: str
    stream_index: int
    codec: str
    bits_per_second: int
    sample_rate_hz: int
    channel_count: int
    language: str


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """All renditions to make of one source."""

    videos: tuple[VideoLadder, ...]
    audios: tuple[AudioRung, ...]
    #: Why the rungs are as they are, in words.
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialPoint:
    """What one size and quality of H.264 came to on trial, quality at the largest size."""

    rendition_id: str
    crf: float
    bits_per_second: int
    vmaf: float
