"""What can be played of a title, and where in it an offset leads. Times in ticks, sizes in bytes; no I/O."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import TypeVar

from services.media.time import NS_PER_SECOND, Timeline, segment_of, ticks_to_ns_up
from services.playback.errors import CodecNotOffered, OffsetOutOfRange, RenditionNotFound, TitleNotPlayable

T = TypeVar("T")

#: A title is finished when the position is within its last twentieth or 30 s, whichever is shorter.
FINISHED_PART = 20
FINISHED_NS = 30 * NS_PER_SECOND


class VideoCodec(enum.Enum):
    """How pictures are coded."""

    H264 = "H.264"
    HEVC = "HEVC"
    AV1 = "AV1"


class AudioCodec(enum.Enum):
    """How sound is coded."""

    AAC = "AAC"
    OPUS = "Opus"


#: The sound that goes with the pictures unless another is asked for.
MATCHING = {
    VideoCodec.H264: AudioCodec.AAC,
    VideoCodec.HEVC: AudioCodec.AAC,
    VideoCodec.AV1: AudioCodec.OPUS,
}


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a segment that starts with a sync point (one `moof` and its `mdat`)."""

    offset_bytes: int
    size_bytes: int
    start_ticks: int
    duration_ticks: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A published segment of one rendition: an immutable object of the origin."""

    number: int
    start_ticks: int
    duration_ticks: int
    object_key: str
    size_bytes: int
    sha256: bytes
    fragments: tuple[Fragment, ...]

    def fragment_at(self, ticks: Fraction) -> Fragment:
        """The last fragment that starts at or before `ticks`; the first when none does."""
        return last_where(self.fragments, lambda fragment: fragment.start_ticks <= ticks) or self.fragments[0]


@dataclass(frozen=True, kw_only=True)
class VideoTrack:
    """Pictures."""

    codec: VideoCodec
    width: int
    height: int
    frame_rate: Fraction


@dataclass(frozen=True, kw_only=True)
class AudioTrack:
    """Sound."""

    codec: AudioCodec
    sample_rate_hz: int
    channel_count: int
    #: BCP 47; `und` when not known.
    language: str


@dataclass(frozen=True, kw_only=True)
class Rendition:
    """One coded version of a title's pictures or of one of its sound tracks."""

    rendition_id: str
    track: VideoTrack | AudioTrack
    #: RFC 6381.
    codecs: str
    timescale: int
    init_key: str
    init_sha256: bytes
    peak_bits_per_second: int
    mean_bits_per_second: int
    ready_segment_count: int
    complete: bool

    @property
    def video(self) -> VideoTrack | None:
        """What is particular to pictures; None for sound."""
        return self.track if isinstance(self.track, VideoTrack) else None

    @property
    def audio(self) -> AudioTrack | None:
        """What is particular to sound; None for pictures."""
        return self.track if isinstance(self.track, AudioTrack) else None

    def ends_before(self, number: int) -> bool:
        """Whether the rendition is whole without a segment of this number."""
        return self.complete and number >= self.ready_segment_count


@dataclass(frozen=True, kw_only=True)
class TextTrack:
    """Subtitles or captions: one WebVTT file for the whole title."""

    track_id: str
    #: BCP 47; `und` when not known.
    language: str
    #: May be empty.
    label: str
    default: bool
    #: Only what must be read by all, such as signs.
    forced: bool


@dataclass(frozen=True, kw_only=True)
class Storyboard:
    """Small pictures of the whole title, in sheets of `columns` times `rows`."""

    tile_width: int
    tile_height: int
    columns: int
    rows: int
    #: From one tile to the next.
    interval_ns: int
    sheet_bytes: int

    @property
    def sheet_ns(self) -> int:
        """How much of the title a sheet shows."""
        return self.columns * self.rows * self.interval_ns

    @property
    def peak_bits_per_second(self) -> int:
        """The largest sheet over the time that it shows; 1 at least."""
        return max(self.sheet_bytes * 8 * NS_PER_SECOND // self.sheet_ns, 1)


@dataclass(frozen=True, kw_only=True)
class Target:
    """The frame an offset means."""

    frame: int
    pts_ticks: int
    segment: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a stream that must show a target begins, times in nanoseconds of the source timeline."""

    segment_start_ns: int
    media_start_ns: int
    #: Bytes of the segment before the fragment that is sent first.
    offset_bytes: int
    trim_ns: int
    trim_frame_count: int
    offset_ns: int
    frame: int


@dataclass(frozen=True, kw_only=True)
class TitleMedia:
    """What can be played of a title, as catalog last told."""

    title: str
    #: The job whose output this is; empty before there is one.
    job: str
    #: Who made the title. Format: `users/{user}`.
    owner: str
    #: Whether viewers may see it.
    shown: bool
    #: Whether nothing is missing.
    complete: bool
    timeline: Timeline
    segment_starts: tuple[int, ...]
    #: Whether `segment_starts` covers the whole source.
    planned: bool
    #: Best pictures first, then sound.
    renditions: tuple[Rendition, ...]
    #: When it first became playable.
    playable_time: datetime | None
    #: Whether a newer source took its place: nothing more will come.
    replaced: bool = False
    texts: tuple[TextTrack, ...] = ()
    storyboard: Storyboard | None = None
    #: The message this was read from, for answers that repeat parts of it; opaque here.
    message: object

    @property
    def duration_ns(self) -> int:
        """Length, rounded up; 0 until the source was read."""
        return ticks_to_ns_up(self.timeline.duration_ticks, self.timeline.timescale)

    @property
    def videos(self) -> list[Rendition]:
        """The renditions of pictures, best first."""
        return [rendition for rendition in self.renditions if rendition.video]

    @property
    def audios(self) -> list[Rendition]:
        """The renditions of sound."""
        return [rendition for rendition in self.renditions if rendition.audio]

    @property
    def ready_segment_count(self) -> int:
        """Segments playable without a gap from the start, in some rendition of pictures and of sound."""
        sound = [self.segment_limit if a.complete else a.ready_segment_count for a in self.audios]
        pictures = [rendition.ready_segment_count for rendition in self.videos]
        return min(max(pictures, default=0), max(sound, default=self.segment_limit))

    @property
    def segment_limit(self) -> int:
        """How many segments are planned so far."""
        return len(self.segment_starts)

    def is_over(self, number: int) -> bool:
        """Whether the title ends before this segment."""
        return self.planned and number >= self.segment_limit

    def rendition(self, rendition_id: str) -> Rendition:
        """A rendition by its id. Raises `RenditionNotFound`."""
        for rendition in self.renditions:
            if rendition.rendition_id == rendition_id:
                return rendition
        raise RenditionNotFound(rendition_id)

    def target(self, offset_ns: int) -> Target:
        """The frame with the largest presentation time not after the offset.

        Raises `OffsetOutOfRange`, and `TitleNotPlayable` while the title's frames aren't known.
        """
        if not self.timeline.frame_count:
            raise TitleNotPlayable(self.title)
        end = Fraction(self.timeline.duration_ticks * NS_PER_SECOND, self.timeline.timescale)
        if offset_ns >= end:
            raise OffsetOutOfRange(f"{float(end / NS_PER_SECOND):.3f}")
        frame = self.timeline.frame_at(offset_ns)
        pts = self.timeline.pts(frame)
        return Target(frame=frame, pts_ticks=pts, segment=segment_of(self.segment_starts or (0,), pts))

    def target_of_segment(self, number: int) -> Target:
        """The first frame of a planned segment."""
        pts = self.segment_starts[number]
        return Target(frame=self.timeline.frame_at_ticks(pts), pts_ticks=pts, segment=number)

    def entry(self, target: Target, rendition: Rendition, segment: Segment) -> Entry | None:
        """How to begin with `segment` so that the target is shown; None when it isn't (yet) inside it."""
        wanted = Fraction(target.pts_ticks * rendition.timescale, self.timeline.timescale)
        if wanted >= segment.start_ticks + segment.duration_ticks:
            return None
        fragment = segment.fragment_at(wanted)
        start = Fraction(fragment.start_ticks * self.timeline.timescale, rendition.timescale)
        offset_ns = ticks_to_ns_up(target.pts_ticks, self.timeline.timescale)
        media_start_ns = ticks_to_ns_up(fragment.start_ticks, rendition.timescale)
        return Entry(
            segment_start_ns=ticks_to_ns_up(segment.start_ticks, rendition.timescale),
            media_start_ns=media_start_ns,
            offset_bytes=fragment.offset_bytes,
            trim_ns=offset_ns - media_start_ns,
            trim_frame_count=target.frame - self.timeline.frame_at_ticks(start),
            offset_ns=offset_ns,
            frame=target.frame,
        )

    def pictures(self, codec: VideoCodec | None, max_height: int) -> list[Rendition]:
        """The renditions to choose from, the wanted one first. Raises `CodecNotOffered`.

        Without a codec H.264, else whatever there is. Where no rendition is as small as `max_height` (0:
        any), the lowest one.
        """
        offered = [(r, r.video) for r in self.videos if r.video]
        codecs = {track.codec for _, track in offered}
        wanted = codec or (
            VideoCodec.H264 if VideoCodec.H264 in codecs else next(iter(codecs), VideoCodec.H264)
        )
        same = sorted(((r, t) for r, t in offered if t.codec is wanted), key=lambda pair: -pair[1].height)
        if not same:
            raise CodecNotOffered(wanted.value)
        low_enough = [r for r, track in same if not max_height or track.height <= max_height]
        return low_enough or [same[-1][0]]

    def sound(self, video: VideoCodec, audio_id: str) -> Rendition | None:
        """The sound to go with these pictures; None for a silent title. Raises `RenditionNotFound`."""
        if audio_id:
            asked = self.rendition(audio_id)
            if asked.audio is None:
                raise RenditionNotFound(audio_id)
            return asked
        matching = [r for r in self.audios if r.audio and r.audio.codec is MATCHING[video]]
        return next(iter(matching or self.audios), None)


def last_where(items: Sequence[T], fits: Callable[[T], bool]) -> T | None:
    """The last item of the leading run that fits, or None."""
    found = None
    for item in items:
        if not fits(item):
            break
        found = item
    return found


def sound_start(segment: Segment, timescale: int, media_start_ns: int) -> int:
    """Bytes of a sound segment to leave out: it begins with the fragment that covers `media_start_ns`."""
    return segment.fragment_at(Fraction(media_start_ns * timescale, NS_PER_SECOND)).offset_bytes


def resume_ns(position_ns: int, duration_ns: int) -> int:
    """Where to go on after a viewer stopped at `position_ns`: there, or at the start once it was finished."""
    finished_ns = min(FINISHED_NS, duration_ns // FINISHED_PART)
    return 0 if position_ns >= duration_ns - finished_ns else position_ns


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to one stream. It is live until `expire_time`, unless ended before."""

    #: Format: `leases/{lease}`.
    name: str
    #: Format: `users/{user}/profiles/{profile}`.
    profile: str
    #: Format: `titles/{title}`.
    title: str
    device: str
    start_time: datetime
    expire_time: datetime
    title_duration_ns: int
    #: The job whose media it reads to its end; empty: what the title is at the time.
    job: str = ""
    #: Streams of the account when it was taken.
    stream_limit: int = 0

    @property
    def user(self) -> str:
        """The account whose stream it takes. Format: `users/{user}`."""
        return "/".join(self.profile.split("/")[:2])
