"""A real film, encoded by the encoder itself and published in a running catalog: what playback tests play."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from kino.catalog.v1 import catalog_pb2 as pb
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.media.v1 import media_pb2
from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import (
    AudioCodec,
    AudioRung,
    Chunk,
    Rendition,
    Segment,
    SoundSpan,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.media.testfilm import FilmSpec, make_film
from services.media.time import Timeline
from services.runtime.app import Running
from services.runtime.testing import channel_of, service_token, user_token

PUBLISHER = "users/publisher"
#: Of what is published unless another is named.
JOB = "jobs/one"
_RATE = Fraction(30000, 1001)
_CODECS = {
    "h264": media_pb2.VIDEO_CODEC_H264,
    "av1": media_pb2.VIDEO_CODEC_AV1,
    "aac": media_pb2.AUDIO_CODEC_AAC,
    "opus": media_pb2.AUDIO_CODEC_OPUS,
}


@dataclass(frozen=True, kw_only=True)
class Film:
    """A film in all its renditions, cut into segments at `cuts` (frames)."""

    timeline: Timeline
    cuts: tuple[int, ...]
    pictures: dict[str, list[Rendition]]
    sounds: dict[str, Rendition]
    heights: dict[str, int]

    @property
    def starts(self) -> list[int]:
        """Segment starts in ticks."""
        return [self.timeline.pts(cut) for cut in self.cuts[:-1]]

    def segments(self, rendition_id: str) -> list[Segment]:
        """The segments of one rendition."""
        if rendition_id in self.sounds:
            return list(self.sounds[rendition_id].segments)
        return [part.segments[0] for part in self.pictures[rendition_id]]

    def one(self, rendition_id: str) -> Rendition:
        """What the segments of a rendition share."""
        return self.sounds.get(rendition_id) or self.pictures[rendition_id][0]


async def encode_film(
    folder: Path, spec: FilmSpec, cuts: Sequence[int], rungs: dict[VideoCodec, list[VideoRung]]
) -> Film:
    """Make a film and encode it whole, each segment by an FFmpeg of its own."""
    source = folder / "film.mp4"
    await make_film(source, spec)
    film = spec.timeline
    clock = SourceClock(
        stream_index=0, time_base=Fraction(1, 30000), first_pts=0, container_start_us=0, frame_rate=_RATE
    )
    pictures: dict[str, list[Rendition]] = {}
    for codec, ladder in rungs.items():
        for number, (start, stop) in enumerate(pairwise(cuts)):
            chunk = Chunk(
                number=number,
                start_ticks=film.pts(start),
                timescale=film.timescale,
                runs=film.part(start, stop),
                previous_frame_ticks=film.pts(start) - film.pts(start - 1) if start else 0,
                decode_delay_ticks=film.reorder_ticks(2),
            )
            made, _ = await FfmpegEngine().video(source, chunk, clock, codec, ladder)
            for rendition in made:
                pictures.setdefault(rendition.rendition_id, []).append(rendition)
    span = SoundSpan(
        starts=tuple(Fraction(film.pts(cut), film.timescale) for cut in cuts[:-1]),
        end=Fraction(film.duration_ticks, film.timescale),
    )
    sounds = {}
    for sound in AudioCodec:
        rung = AudioRung(
            rendition_id=f"{sound}-128-und-0", stream_index=1, codec=sound, bits_per_second=128_000
        )
        sounds[rung.rendition_id], _ = await FfmpegEngine().audio(
            source, rung, clock, span, ready=lambda _: None
        )
    heights = {rung.rendition_id: rung.height for ladder in rungs.values() for rung in ladder}
    return Film(timeline=film, cuts=tuple(cuts), pictures=pictures, sounds=sounds, heights=heights)


class Publisher:
    """Publishes a film in a running catalog, piece by piece."""

    def __init__(self, process: Running, film: Film, *, replaces: str = "", job: str = JOB) -> None:
        """`replaces` is a title whose film this one is to replace; else a new one is made."""
        self._process = process
        self._film = film
        self._replaces = replaces
        self._job = job
        self.title = replaces

    async def begin(self, *, planned: bool = True) -> str:
        """Create the title and announce its frames, grid and renditions; its name."""
        film = self._film
        self.title = self._replaces or await self._create()
        timeline = media_pb2.Timeline(timescale=film.timeline.timescale)
        for run in film.timeline.runs:
            timeline.frame_runs.add(count=run.count, duration_ticks=run.duration_ticks)
        async with self._catalog() as stub:
            await stub.BeginMedia(
                pb.BeginMediaRequest(
                    title=self.title,
                    job=self._job,
                    replace=bool(self._replaces),
                    timeline=timeline,
                    renditions=[self._planned(r) for r in self._ids],
                )
            )
            await stub.ExtendTimeline(
                pb.ExtendTimelineRequest(
                    title=self.title, job=self._job, segment_start_ticks=film.starts, planned=planned
                )
            )
        return self.title

    async def _create(self) -> str:
        async with channel_of(self._process, user_token(self._process, PUBLISHER, "publisher")) as channel:
            request = pb.CreateTitleRequest(request_id=str(uuid.uuid4()))
            request.title.display_name = "Test film"
            return str((await CatalogServiceStub(channel).CreateTitle(request)).title.name)

    async def publish(self, rendition_id: str, numbers: Sequence[int] | None = None) -> None:
        """Store segments of a rendition (default: all) and publish them."""
        film, objects = self._film, self._process.context.objects
        rendition, segments = film.one(rendition_id), film.segments(rendition_id)
        chosen = [segments[n] for n in (range(len(segments)) if numbers is None else numbers)]
        folder = (
            f"media/{self.title.removeprefix('titles/')}/{self._job.removeprefix('jobs/')}/{rendition_id}"
        )
        await objects.put(f"{folder}/init.mp4", rendition.init)
        shift = rendition.media_time if rendition_id in film.sounds else 0
        messages = []
        for segment in chosen:
            key = f"{folder}/{segment.number:06}-1.m4s"
            await objects.put(key, segment.data)
            message = media_pb2.Segment(
                number=segment.number,
                start_ticks=segment.start_ticks,
                duration_ticks=segment.duration_ticks,
                object_key=key,
                size_bytes=len(segment.data),
                sha256=segment.sha256,
            )
            for part in segment.fragments:
                message.fragments.add(
                    offset_bytes=part.offset,
                    size_bytes=part.size_bytes,
                    start_ticks=part.tfdt_ticks - shift,
                    duration_ticks=part.duration_ticks,
                )
            messages.append(message)
        async with self._catalog() as stub:
            await stub.PublishSegments(
                pb.PublishSegmentsRequest(
                    title=self.title,
                    job=self._job,
                    rendition_id=rendition_id,
                    init_object_key=f"{folder}/init.mp4",
                    init_sha256=hashlib.sha256(rendition.init).digest(),
                    codecs=rendition.codecs,
                    timescale=rendition.timescale,
                    segments=messages,
                )
            )

    async def publish_all(self) -> str:
        """The whole film at once; its name."""
        await self.begin()
        for rendition_id in self._ids:
            await self.publish(rendition_id)
        return self.title

    async def delete(self) -> None:
        """Delete the title."""
        async with channel_of(self._process, user_token(self._process, PUBLISHER, "publisher")) as channel:
            await CatalogServiceStub(channel).DeleteTitle(pb.DeleteTitleRequest(name=self.title))

    @property
    def _ids(self) -> list[str]:
        return [*self._film.pictures, *self._film.sounds]

    @asynccontextmanager
    async def _catalog(self) -> AsyncIterator[Any]:
        """A catalog stub with the scheduler's rights."""
        async with channel_of(self._process, service_token(self._process, "scheduler")) as channel:
            yield CatalogServiceStub(channel)

    def _planned(self, rendition_id: str) -> media_pb2.Rendition:
        codec = _CODECS[rendition_id.partition("-")[0]]
        if rendition_id in self._film.sounds:
            audio = media_pb2.AudioTrack(
                codec=media_pb2.AudioCodec.ValueType(codec),
                sample_rate_hz=48_000,
                channel_count=2,
                language="und",
            )
            return media_pb2.Rendition(rendition_id=rendition_id, audio=audio)
        height = self._film.heights[rendition_id]
        video = media_pb2.VideoTrack(
            codec=media_pb2.VideoCodec.ValueType(codec), width=height * 16 // 18 * 2, height=height
        )
        video.frame_rate.numerator, video.frame_rate.denominator = _RATE.numerator, _RATE.denominator
        return media_pb2.Rendition(rendition_id=rendition_id, video=video)
