"""A title of any length, made of few bytes: the frames and renditions are told, the media is filler."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass

from kino.catalog.v1 import catalog_pb2 as pb
from kino.catalog.v1 import resources_pb2
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.media.v1 import media_pb2
from services.runtime.app import Running
from services.runtime.testing import channel_of, service_token, user_token
from tests.support.published import JOB, PUBLISHER, Film

TICKS, FRAME_TICKS, FRAMES = 24_000, 1_000, 144
VIDEO, AUDIO = "h264-360", "aac-128-und-0"


@dataclass(frozen=True, kw_only=True)
class LongTitle:
    """Segments of six seconds, with one rendition of pictures and one of sound; sizes are multiples of 4."""

    segment_count: int
    video_bytes: int
    audio_bytes: int

    async def publish(self, process: Running, film: Film, *, name: str = "Long") -> str:
        """Publish it, with the init segments of a real film; its resource name."""
        async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
            request = pb.CreateTitleRequest(
                title=resources_pb2.Title(display_name=name), request_id=str(uuid.uuid4())
            )
            title = (await CatalogServiceStub(channel).CreateTitle(request)).title.name
        async with channel_of(process, service_token(process, "scheduler")) as channel:
            stub = CatalogServiceStub(channel)
            await stub.BeginMedia(self._begin(title))
            grid = [number * FRAMES * FRAME_TICKS for number in range(self.segment_count)]
            await stub.ExtendTimeline(
                pb.ExtendTimelineRequest(title=title, job=JOB, segment_start_ticks=grid, planned=True)
            )
            for rendition_id, size_bytes in ((VIDEO, self.video_bytes), (AUDIO, self.audio_bytes)):
                for page in await self._segments(process, film, title, rendition_id, size_bytes):
                    await stub.PublishSegments(page)
        return title

    def _begin(self, title: str) -> pb.BeginMediaRequest:
        timeline = media_pb2.Timeline(timescale=TICKS)
        timeline.frame_runs.add(count=self.segment_count * FRAMES, duration_ticks=FRAME_TICKS)
        video = media_pb2.VideoTrack(codec=media_pb2.VIDEO_CODEC_H264, width=640, height=360)
        video.frame_rate.numerator, video.frame_rate.denominator = TICKS // FRAME_TICKS, 1
        audio = media_pb2.AudioTrack(
            codec=media_pb2.AUDIO_CODEC_AAC, sample_rate_hz=48_000, channel_count=2, language="und"
        )
        renditions = [
            media_pb2.Rendition(rendition_id=VIDEO, video=video),
            media_pb2.Rendition(rendition_id=AUDIO, audio=audio),
        ]
        return pb.BeginMediaRequest(title=title, job=JOB, timeline=timeline, renditions=renditions)

    async def _segments(
        self, process: Running, film: Film, title: str, rendition_id: str, size_bytes: int
    ) -> list[pb.PublishSegmentsRequest]:
        folder, one = f"media/{title.removeprefix('titles/')}/one/{rendition_id}", film.one(rendition_id)
        await process.context.objects.put(f"{folder}/init.mp4", one.init)
        contents = [number.to_bytes(4) * (size_bytes // 4) for number in range(self.segment_count)]
        await asyncio.gather(
            *(
                process.context.objects.put(f"{folder}/{number}.m4s", content)
                for number, content in enumerate(contents)
            )
        )
        ticks = FRAMES * FRAME_TICKS
        segments = [
            media_pb2.Segment(
                number=number,
                start_ticks=number * ticks,
                duration_ticks=ticks,
                object_key=f"{folder}/{number}.m4s",
                size_bytes=size_bytes,
                sha256=hashlib.sha256(contents[number]).digest(),
                fragments=[
                    media_pb2.Fragment(
                        offset_bytes=0,
                        size_bytes=size_bytes,
                        start_ticks=number * ticks,
                        duration_ticks=ticks,
                    )
                ],
            )
            for number in range(self.segment_count)
        ]
        return [
            pb.PublishSegmentsRequest(
                title=title,
                job=JOB,
                rendition_id=rendition_id,
                init_object_key=f"{folder}/init.mp4",
                init_sha256=hashlib.sha256(one.init).digest(),
                codecs=one.codecs,
                timescale=TICKS,
                segments=segments[first : first + 1000],
            )
            for first in range(0, self.segment_count, 1000)
        ]
