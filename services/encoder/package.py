"""Packaging: what an encoder wrote becomes a segment, or a typed refusal.

Nothing is taken on trust: every frame must be shown at the very tick that the plan gives it, key frames must
stand where they were asked for and be closed, and samples are then written anew in Kino's one form (see
`media.cmaf`).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from services.encoder.model import AudioRung, Chunk, Rendition, Segment, SoundSpan, VideoCodec
from services.media import bmff, cmaf
from services.media.cmaf import AUDIO_TRACK_ID, VIDEO_TRACK_ID, Sample
from services.media.errors import PackagingMismatch

#: More fragments than any segment has: sequence numbers then rise over a whole stream.
FRAGMENTS_PER_SEGMENT = 64


def _segment(number: int, init: bytes, start: int, fragments: Sequence[bytes]) -> Segment:
    data = b"".join(fragments)
    index = cmaf.index_fragments(data, init)
    return Segment(
        number=number,
        start_ticks=start,
        duration_ticks=sum(fragment.duration_ticks for fragment in index),
        data=data,
        sha256=hashlib.sha256(data).digest(),
        fragments=index,
    )


def _presented(encoded: bytes) -> tuple[list[Sample], list[int]]:
    """All samples in decode order, and when each is shown."""
    init = cmaf.init_of(encoded)
    media_time = bmff.media_time_of(init, cmaf.only_track(init))
    samples, shown = [], []
    for fragment in cmaf.parse_fragments(encoded):
        at = fragment.tfdt_ticks - media_time
        for sample in fragment.samples:
            samples.append(sample)
            shown.append(at + sample.composition_ticks)
            at += sample.duration_ticks
    return samples, shown


def _check_times(chunk: Chunk, shown: list[int], timescale: int) -> None:
    if timescale != chunk.timescale:
        raise PackagingMismatch(problem=f"timescale {timescale} instead of {chunk.timescale}")
    expected = chunk.pts
    if len(shown) != len(expected):
        raise PackagingMismatch(
            problem=f"chunk {chunk.number} has {len(shown)} frames instead of {len(expected)}"
        )
    for frame, (is_at, should_be) in enumerate(zip(sorted(shown), expected, strict=True)):
        if is_at != should_be:
            raise PackagingMismatch(
                problem=f"frame {frame} of chunk {chunk.number} is at tick {is_at} instead of {should_be}"
            )


def _check_syncs(chunk: Chunk, samples: list[Sample], frames: list[int]) -> list[int]:
    """Where in decode order each fragment begins; checks that key frames are as planned, and closed."""
    wanted = chunk.sync_frames
    starts = [position for position, sample in enumerate(samples) if sample.sync]
    if [frames[position] for position in starts] != wanted:
        found = [frames[position] for position in starts]
        raise PackagingMismatch(problem=f"chunk {chunk.number} has key frames at {found} instead of {wanted}")
    for start, stop in pairwise([*starts, len(samples)]):
        if sorted(frames[start:stop]) != list(range(start, stop)):
            raise PackagingMismatch(
                problem=f"chunk {chunk.number} has an open group of pictures at frame {start}"
            )
    return starts


def package_video(chunk: Chunk, codec: VideoCodec, rendition_id: str, encoded: bytes) -> Rendition:
    """The one segment that an encoder's file holds, checked against its chunk.

    Decode times become the presentation grid itself, so that `tfdt` of a segment is its start and durations
    are those of the frames shown; composition offsets carry the reordering plus the title's constant delay.
    Raises `PackagingMismatch` and `MalformedMedia`.
    """
    raw_init = cmaf.init_of(encoded)
    samples, shown = _presented(encoded)
    _check_times(chunk, shown, bmff.timescale_of(raw_init, cmaf.only_track(raw_init)))
    pts, durations = chunk.pts, chunk.durations
    place = {at: frame for frame, at in enumerate(pts)}
    frames = [place[at] for at in shown]
    starts = _check_syncs(chunk, samples, frames)
    # The delay is the codec's, not the chunk's, which may happen not to reorder: the init segment is shared.
    delay = chunk.decode_delay_ticks if codec.reorders else 0
    init = cmaf.write_init(raw_init, track_id=VIDEO_TRACK_ID, media_time=delay)
    rewritten = [
        Sample(
            duration_ticks=durations[position],
            composition_ticks=pts[frame] - pts[position] + delay,
            sync=sample.sync,
            payload=sample.payload,
        )
        for position, (sample, frame) in enumerate(zip(samples, frames, strict=True))
    ]
    if any(sample.composition_ticks < 0 for sample in rewritten):
        raise PackagingMismatch(problem=f"chunk {chunk.number} reorders further than {delay} ticks")
    fragments = [
        cmaf.write_fragment(
            track_id=VIDEO_TRACK_ID,
            sequence=chunk.number * FRAGMENTS_PER_SEGMENT + part + 1,
            tfdt_ticks=pts[start],
            samples=rewritten[start:stop],
        )
        for part, (start, stop) in enumerate(pairwise([*starts, len(samples)]))
    ]
    segment = _segment(chunk.number, init, chunk.start_ticks, fragments)
    _check_segment(chunk, segment, delay)
    return Rendition(
        rendition_id=rendition_id,
        init=init,
        codecs=cmaf.codec_string(init),
        timescale=chunk.timescale,
        media_time=delay,
        segments=(segment,),
    )


def _check_segment(chunk: Chunk, segment: Segment, delay: int) -> None:
    """What was written, read again: times, count and length must be the chunk's."""
    first = segment.fragments[0]
    counted = sum(fragment.sample_count for fragment in segment.fragments)
    if (first.tfdt_ticks, segment.duration_ticks, counted) != (
        chunk.start_ticks,
        chunk.duration_ticks,
        chunk.frame_count,
    ):
        raise PackagingMismatch(problem=f"segment {chunk.number} does not cover its chunk (delay {delay})")


class AudioPackager:
    """Cuts one continuous sound track on the grid while it is being encoded.

    Feed it what the encoder says; it answers with the segments that are whole. A segment begins with the last
    access unit that starts at or before its grid point, so that sound is never late at a start in the middle.
    """

    def __init__(self, rung: AudioRung, span: SoundSpan) -> None:
        """Makes the segments of `span`."""
        rate = rung.sample_rate_hz
        self._rung, self._span, self._end = rung, span, span.end * rate
        #: Where each segment but the first begins, in samples; the end is one more where the title goes on.
        edges = [*span.starts[1:], *([span.end] if span.goes_on else [])]
        self._edges = [edge * rate for edge in edges]
        self._buffer = bytearray()
        self._moof = b""
        self._encoder_init = b""
        self._pending: list[Sample] = []
        self._pending_tfdt = 0
        self._next_tfdt = 0
        self._number = 0
        self.media_time = 0
        self.init = b""

    @property
    def done_samples(self) -> int:
        """How far the encode is, in samples of sound."""
        return max(self._next_tfdt - self.media_time, 0)

    def feed(self, piece: bytes) -> list[Segment]:
        """Takes the next bytes of the encoder's file; returns the segments finished by them."""
        self._buffer += piece
        done: list[Segment] = []
        for kind, raw in self._whole_boxes():
            if kind in (b"ftyp", b"moov"):
                self._encoder_init += raw
                if kind == b"moov":
                    self._start()
            elif kind == b"moof":
                self._moof = raw
            elif kind == b"mdat":
                self._take(self._moof + raw)
                done += self._cut()
        return self._wanted(done)

    def finish(self) -> list[Segment]:
        """The last segment; raises `PackagingMismatch` when the sound ends before the grid does."""
        if self._buffer:
            raise PackagingMismatch(problem="the sound ends in the middle of a box")
        if self._next_tfdt - self.media_time < int(self._end):
            raise PackagingMismatch(
                problem=f"the sound ends at sample {self.done_samples} instead of {int(self._end)}"
            )
        if self._number != len(self._edges):
            raise PackagingMismatch(
                problem=f"{self._number} borders of segments of sound instead of {len(self._edges)}"
            )
        return [] if self._span.goes_on else self._wanted([self._emit(len(self._pending))])

    def _wanted(self, made: list[Segment]) -> list[Segment]:
        return [segment for segment in made if segment.number >= self._span.first_segment]

    def _whole_boxes(self) -> Iterator[tuple[bytes, bytes]]:
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[:4], "big")
            if size < 8:
                raise PackagingMismatch(problem=f"a box of {size} bytes in the sound")
            if len(self._buffer) < size:
                return
            raw = bytes(self._buffer[:size])
            del self._buffer[:size]
            yield raw[4:8], raw

    def _start(self) -> None:
        trak = cmaf.only_track(self._encoder_init)
        if bmff.timescale_of(self._encoder_init, trak) != self._rung.sample_rate_hz:
            raise PackagingMismatch(problem="the sound is not counted in samples")
        self.media_time = bmff.media_time_of(self._encoder_init, trak)
        self.init = cmaf.write_init(self._encoder_init, track_id=AUDIO_TRACK_ID, media_time=self.media_time)

    def _take(self, media: bytes) -> None:
        for fragment in cmaf.parse_fragments(media, self._encoder_init):
            if fragment.tfdt_ticks != self._next_tfdt:
                raise PackagingMismatch(
                    problem=f"sound at {fragment.tfdt_ticks} instead of {self._next_tfdt}"
                )
            self._pending += fragment.samples
            self._next_tfdt += sum(sample.duration_ticks for sample in fragment.samples)

    def _cut(self) -> list[Segment]:
        done = []
        while self._number < len(self._edges):
            point = self._edges[self._number] + self.media_time
            begins = list(accumulate((s.duration_ticks for s in self._pending), initial=self._pending_tfdt))
            if begins[-1] <= point:
                break
            done.append(self._emit(bisect_right(begins, point) - 1))
        return done

    def _emit(self, count: int) -> Segment:
        """The first `count` pending access units as the next segment, in fragments of at most two seconds."""
        if count <= 0:
            raise PackagingMismatch(problem=f"segment {self._number} has no sound of its own")
        tfdt = self._pending_tfdt
        per_fragment = max(2 * self._rung.sample_rate_hz // self._pending[0].duration_ticks, 1)
        fragments = []
        for part, at in enumerate(range(0, count, per_fragment)):
            samples = self._pending[at : min(at + per_fragment, count)]
            fragments.append(
                cmaf.write_fragment(
                    track_id=AUDIO_TRACK_ID,
                    sequence=self._number * FRAGMENTS_PER_SEGMENT + part + 1,
                    tfdt_ticks=tfdt,
                    samples=samples,
                )
            )
            tfdt += sum(sample.duration_ticks for sample in samples)
        segment = _segment(self._number, self.init, self._pending_tfdt - self.media_time, fragments)
        del self._pending[:count]
        self._pending_tfdt = tfdt
        self._number += 1
        return segment

    def rendition(self, segments: Sequence[Segment]) -> Rendition:
        """`segments` with what they share."""
        return Rendition(
            rendition_id=self._rung.rendition_id,
            init=self.init,
            codecs=cmaf.codec_string(self.init),
            timescale=self._rung.sample_rate_hz,
            media_time=self.media_time,
            segments=tuple(segments),
        )
