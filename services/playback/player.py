"""The stream of a title: which segments, in which rendition, in what order, and when it ends."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from services.media.cmaf import combined_init
from services.media.time import ticks_to_ns_up
from services.playback.cache import ChunkCache, Reading
from services.playback.chunks import Buffers, Chunks, Ramp, Track
from services.playback.errors import (
    BytesOutOfRange,
    RenditionNotPlayed,
    SegmentNotReady,
    SegmentOutOfRange,
    TitleReplaced,
)
from services.playback.leases import Leases
from services.playback.model import (
    Entry,
    Lease,
    Rendition,
    Segment,
    Target,
    TitleMedia,
    VideoCodec,
    sound_start,
)
from services.playback.titles import Titles
from services.playback.usecases import Resume
from services.runtime.clock import Clock
from services.runtime.errors import KinoError

#: The number that stands for a rendition's init segment.
INIT = -1


@dataclass(frozen=True, kw_only=True)
class Position:
    """The first byte that a stream which broke off lacks."""

    video_id: str
    number: int
    track: Track
    offset_bytes: int


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a client asked `Play` for."""

    #: None: where the profile stopped.
    offset_ns: int | None = None
    #: None: H.264 where there is any.
    codec: VideoCodec | None = None
    #: 0: any.
    max_height: int = 0
    #: Empty: the default track.
    audio_rendition_id: str = ""
    #: 0: all.
    segment_count: int = 0
    #: Set where an earlier stream goes on.
    resume: Position | None = None


@dataclass(frozen=True, kw_only=True)
class Header:
    """Start of a stream, or change of its pictures."""

    media: TitleMedia
    video: Rendition
    audio: Rendition | None
    segment_number: int
    entry: Entry
    combined_init: bytes
    video_init: bytes
    audio_init: bytes


class EndReason(enum.Enum):
    """Why a stream ended in order."""

    TITLE = "END_OF_TITLE"
    READY_PART = "END_OF_READY_PART"
    WINDOW = "END_OF_WINDOW"
    MOVED = "MOVED"
    REPLACED = "REPLACED"


@dataclass(frozen=True, kw_only=True)
class End:
    """Last message of a stream."""

    reason: EndReason
    #: None at the end of the title.
    next_offset_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A segment to send, from `start` bytes on."""

    track: Track
    segment: Segment
    start: int = 0


@dataclass
class _Stream:
    """Where one `Play` stands."""

    wanted: Wanted
    #: The job whose output plays: another one's segments don't fit to these.
    job: str
    #: The frame to begin with.
    target: Target
    #: Segment to send next, and where it starts.
    number: int
    next_ns: int
    video_id: str = ""
    #: Until it goes on where an earlier one broke off.
    resume: Position | None = None
    sent_count: int = 0


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What to send for one segment number."""

    video: Rendition
    audio: Rendition | None
    #: The segment of the pictures.
    segment: Segment
    #: Set where the stream starts or its pictures change.
    entry: Entry | None
    parts: Sequence[_Part]


@dataclass(frozen=True)
class Source:
    """One object of a rendition, for HTTP: where its bytes come from, and its checksum."""

    reading: Reading
    sha256: bytes
    track: Track


class Player:
    """Sends titles to viewers. Media comes out as finished messages, shared by all who watch the same."""

    def __init__(
        self, *, titles: Titles, cache: ChunkCache, leases: Leases, resume: Resume, clock: Clock
    ) -> None:
        self._titles = titles
        self._cache = cache
        self._leases = leases
        self._resume = resume
        self._clock = clock

    async def play(self, lease: Lease, wanted: Wanted) -> AsyncIterator[Header | Buffers | End]:
        """A header, then pictures and sound of each segment in turn, at last an end.

        Raises `OffsetOutOfRange`, `CodecNotOffered`, `RenditionNotFound`, `LeaseLost`, `LeaseEnded`,
        `TitleNotFound`, `SegmentCorrupt`.
        """
        await self._leases.hold(lease)
        media = await self._titles.get(lease.title, lease.job)
        offset_ns = wanted.offset_ns or 0
        if wanted.offset_ns is None and wanted.resume is None:
            offset_ns = await self._resume.offset_ns(lease.profile, media)
        stream = _stream(media, wanted, offset_ns)
        ramp = Ramp()
        while (end := _end(media, stream)) is None:
            step = await self._step(media, stream) if media.job == stream.job else None
            if step is None:
                gone = media.replaced or media.job != stream.job
                reason = EndReason.REPLACED if gone else EndReason.READY_PART
                end = End(reason=reason, next_offset_ns=stream.next_ns)
                break
            if stream.resume is not None:
                step = _resumed(step, stream.resume)
            elif step.entry is not None:
                yield await self._header(media, stream.number, step, step.entry)
            ahead = self._known_parts(media, step, stream.number + 1)
            async for message in self._send(lease, ramp, step.parts, ahead):
                yield message
            _advance(stream, step)
            media = await self._titles.get(lease.title, lease.job)
        yield end

    async def read(
        self, lease: Lease, rendition_id: str, first: int, count: int, offset_bytes: int
    ) -> AsyncIterator[Buffers]:
        """`count` segments of a rendition from `first` on, less their first `offset_bytes`; -1: its init.

        Raises `RenditionNotFound`, `SegmentNotReady`, `SegmentOutOfRange`, `BytesOutOfRange` and as `play`.
        """
        await self._leases.hold(lease)
        media = await self._titles.get(lease.title, lease.job)
        rendition = media.rendition(rendition_id)
        ramp, track = Ramp(), _track(rendition)
        if first == INIT:
            self._asked_init(rendition)
            start = _checked_start(offset_bytes, (await self._init(rendition)).size_bytes)
            async for message in self._messages(lease, ramp, self._reading_init(rendition), start):
                yield message
            return
        parts = []
        for number in range(first, first + count):
            segment = await self._titles.segment(media, rendition, number)
            if segment is None:
                break
            parts.append(_Part(track=track, segment=segment))
        if not parts:
            raise _absent(media, rendition, first)
        start = _checked_start(offset_bytes, parts[0].segment.size_bytes)
        parts[0] = _Part(track=track, segment=parts[0].segment, start=start)
        async for message in self._send(lease, ramp, parts, ()):
            yield message

    async def source(self, lease: Lease, rendition_id: str, number: int) -> Source:
        """One whole segment, or the init segment (-1), for HTTP. Raises as `read`."""
        await self._leases.take_up(lease)
        media = await self._titles.get(lease.title, lease.job)
        rendition = media.rendition(rendition_id)
        if number == INIT:
            self._asked_init(rendition)
            return Source(self._reading_init(rendition), rendition.init_sha256, _track(rendition))
        segment = await self._titles.segment(media, rendition, number)
        if segment is None:
            raise _absent(media, rendition, number)
        track = _track(rendition)
        self._cache.asked(segment.object_key, segment.sha256)
        return Source(self._reading(_Part(track=track, segment=segment)), segment.sha256, track)

    async def _step(self, media: TitleMedia, stream: _Stream) -> _Step | None:
        """What comes next; None while it isn't published."""
        found = await self._pictures(media, stream)
        if found is None:
            return None
        video, segment = found
        entry, start = None, 0
        if video.rendition_id != stream.video_id or stream.resume is not None:
            starts_here = not stream.sent_count and stream.target.segment == stream.number
            target = stream.target if starts_here else media.target_of_segment(stream.number)
            entry = media.entry(target, video, segment)
            if entry is None:
                return None
            start = entry.offset_bytes
        parts = [_Part(track=Track.VIDEO, segment=segment, start=start)]
        audio = _sound(media, video, stream)
        if audio is not None and not audio.ends_before(stream.number):
            sound = await self._titles.segment(media, audio, stream.number)
            if sound is None:
                return None
            at = sound_start(sound, audio.timescale, entry.media_start_ns) if entry else 0
            parts.append(_Part(track=Track.AUDIO, segment=sound, start=at))
        return _Step(video=video, audio=audio, segment=segment, entry=entry, parts=parts)

    async def _pictures(self, media: TitleMedia, stream: _Stream) -> tuple[Rendition, Segment] | None:
        """The segment in the rendition that plays already, else in the best one that has it."""
        choice = media.pictures(stream.wanted.codec, stream.wanted.max_height)
        for rendition in sorted(choice, key=lambda r: r.rendition_id != stream.video_id):
            segment = await self._titles.segment(media, rendition, stream.number)
            if segment is not None:
                return rendition, segment
        return None

    def _known_parts(self, media: TitleMedia, step: _Step, number: int) -> list[_Part]:
        """The parts of the next segment, as far as they are known without asking."""
        tracks = [(Track.VIDEO, step.video)] + ([(Track.AUDIO, step.audio)] if step.audio else [])
        known = [(track, self._titles.known(media, r.rendition_id, number)) for track, r in tracks]
        return [_Part(track=track, segment=segment) for track, segment in known if segment]

    async def _header(self, media: TitleMedia, number: int, step: _Step, entry: Entry) -> Header:
        for rendition in (step.video, *([step.audio] if step.audio else [])):
            self._asked_init(rendition)
        video_init = (await self._init(step.video)).data()
        audio_init = (await self._init(step.audio)).data() if step.audio else b""
        return Header(
            media=media,
            video=step.video,
            audio=step.audio,
            segment_number=number,
            entry=entry,
            combined_init=_combined((video_init, audio_init) if audio_init else (video_init,)),
            video_init=video_init,
            audio_init=audio_init,
        )

    async def _send(
        self, lease: Lease, ramp: Ramp, parts: Sequence[_Part], ahead: Sequence[_Part]
    ) -> AsyncIterator[Buffers]:
        """The parts one after the other, while those that follow are being read."""
        for part, *following in (parts[i:] for i in range(len(parts))):
            self._cache.asked(part.segment.object_key, part.segment.sha256)
            reading = self._reading(part)
            await reading.size_bytes()
            for later in [*following, *ahead][:2]:
                self._cache.warm(later.segment.object_key, later.segment.sha256, _pack(later))
            async for message in self._messages(lease, ramp, reading, part.start):
                yield message

    async def _messages(
        self, lease: Lease, ramp: Ramp, reading: Reading, start: int
    ) -> AsyncIterator[Buffers]:
        """The bytes from `start` on. A reader that stalls keeps one message, not the segment."""
        size_bytes = await reading.size_bytes()
        while start < size_bytes:
            await self._leases.hold(lease)
            end = ramp.cut(start, size_bytes)
            message = (await reading.at(start, end)).message(start, end)
            began_s = self._clock.monotonic()
            yield message
            ramp.sent(end - start, self._clock.monotonic() - began_s)
            start = end

    def _asked_init(self, rendition: Rendition) -> None:
        if rendition.init_key:
            self._cache.asked(rendition.init_key, rendition.init_sha256)

    def _reading(self, part: _Part) -> Reading:
        return self._cache.reading(part.segment.object_key, part.segment.sha256, _pack(part))

    def _reading_init(self, rendition: Rendition) -> Reading:
        if not rendition.init_key:
            raise SegmentNotReady(rendition.rendition_id, INIT, 1_000)
        pack = partial(Chunks, _track(rendition), INIT)
        return self._cache.reading(rendition.init_key, rendition.init_sha256, pack)

    async def _init(self, rendition: Rendition) -> Chunks:
        return await self._reading_init(rendition).whole()


@lru_cache(maxsize=256)
def _combined(inits: tuple[bytes, ...]) -> bytes:
    """The same for all viewers of a pair; made for each, it would be a fifth of what a start computes."""
    return combined_init(inits)


def _pack(part: _Part) -> partial[Chunks]:
    return partial(Chunks, part.track, part.segment.number)


def _track(rendition: Rendition) -> Track:
    return Track.VIDEO if rendition.video else Track.AUDIO


def _sound(media: TitleMedia, video: Rendition, stream: _Stream) -> Rendition | None:
    return media.sound(video.video.codec, stream.wanted.audio_rendition_id) if video.video else None


def _stream(media: TitleMedia, wanted: Wanted, offset_ns: int) -> _Stream:
    """Raises `OffsetOutOfRange`, `TitleNotPlayable`, `RenditionNotFound`, `SegmentOutOfRange`."""
    position = wanted.resume
    if position is None:
        target = media.target(offset_ns)
        number, video_id = target.segment, ""
    else:
        number, video_id = position.number, media.rendition(position.video_id).rendition_id
        if number >= media.segment_limit:
            raise SegmentOutOfRange(video_id, number)
        target = media.target(offset_ns) if wanted.offset_ns is not None else media.target_of_segment(number)
    next_ns = ticks_to_ns_up(
        media.segment_starts[number] if position else target.pts_ticks, media.timeline.timescale
    )
    return _Stream(
        wanted=wanted,
        job=media.job,
        target=target,
        number=number,
        next_ns=next_ns,
        video_id=video_id,
        resume=position,
    )


def _resumed(step: _Step, position: Position) -> _Step:
    """What is left of a segment. Raises `RenditionNotPlayed`, `BytesOutOfRange`."""
    if step.video.rendition_id != position.video_id:
        raise RenditionNotPlayed(position.video_id)
    left = [part for part in step.parts if part.track >= position.track]
    if left and left[0].track is position.track:
        start = _checked_start(position.offset_bytes, left[0].segment.size_bytes)
        left[0] = replace(left[0], start=start)
    return replace(step, entry=None, parts=left)


def _end(media: TitleMedia, stream: _Stream) -> End | None:
    """The end that is known before the next segment is looked for."""
    if media.is_over(stream.number):
        return End(reason=EndReason.TITLE)
    if stream.wanted.segment_count and stream.sent_count >= stream.wanted.segment_count:
        return End(reason=EndReason.WINDOW, next_offset_ns=stream.next_ns)
    return None


def _advance(stream: _Stream, step: _Step) -> None:
    stream.resume, segment = None, step.segment
    stream.next_ns = ticks_to_ns_up(segment.start_ticks + segment.duration_ticks, step.video.timescale)
    stream.video_id = step.video.rendition_id
    stream.sent_count += 1
    stream.number += 1


def _checked_start(offset_bytes: int, size_bytes: int) -> int:
    if offset_bytes > size_bytes:
        raise BytesOutOfRange(offset_bytes, size_bytes)
    return offset_bytes


def _absent(media: TitleMedia, rendition: Rendition, number: int) -> KinoError:
    if media.is_over(number) or rendition.ends_before(number):
        return SegmentOutOfRange(rendition.rendition_id, number)
    if media.replaced:
        return TitleReplaced(media.title)
    return SegmentNotReady(rendition.rendition_id, number, 1_000)
