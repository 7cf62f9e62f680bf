"""Peers of the scheduler, scripted: a catalogue, a preprocessor and a worker that keep to their contracts."""

# ruff: noqa: N802 -- the contract names the methods

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import catalog_pb2_grpc as catalog_grpc
from kino.catalog.v1 import resources_pb2 as titles
from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import preprocessor_pb2 as preprocessor
from kino.preprocessor.v1 import preprocessor_pb2_grpc as preprocessor_grpc
from kino.preprocessor.v1 import resources_pb2 as source
from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2 as api
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.runtime.app import Build, Context, ServiceApp
from services.runtime.errors import FailedPrecondition, NotFound
from services.runtime.objects import ObjectStore

FPS = 25
CHUNK_FRAMES = 5 * FPS
WINDOW_CHUNKS = 4
#: A text track that can't be had, as it turns out.
LEFT_OUT = source.Treatment(
    kind=source.Treatment.KIND_DROP_TRACK, reason="Text track 2 is left out: it is damaged.", stream_index=2
)


class Catalog(catalog_grpc.CatalogServiceServicer):
    """One title per name, made when first mentioned; the first publication of a number wins."""

    def __init__(self) -> None:
        self.media: dict[str, titles.Media] = {}
        self.segments: dict[tuple[str, str], dict[int, media.Segment]] = {}
        self.failures: dict[str, Any] = {}
        self.publications: list[tuple[str, int, str]] = []
        self.down = False

    async def BeginMedia(
        self, request: catalog.BeginMediaRequest, context: Any
    ) -> catalog.BeginMediaResponse:
        found = self.media.setdefault(request.title, titles.Media(title=request.title, job=request.job))
        if found.job != request.job:
            raise FailedPrecondition("The title has a source.")
        if request.HasField("timeline"):
            found.timeline.CopyFrom(request.timeline)
            del found.renditions[:]
            found.renditions.extend(request.renditions)
        return catalog.BeginMediaResponse(media=found)

    async def ExtendTimeline(
        self, request: catalog.ExtendTimelineRequest, context: Any
    ) -> catalog.ExtendTimelineResponse:
        found = self.media[request.title]
        known = list(found.timeline.segment_start_ticks)
        assert list(request.segment_start_ticks)[: len(known)] == known
        del found.timeline.segment_start_ticks[:]
        found.timeline.segment_start_ticks.extend(request.segment_start_ticks)
        found.timeline.planned = request.planned
        del found.highlights[:]
        found.highlights.extend(request.highlights)
        return catalog.ExtendTimelineResponse()

    async def PublishSegments(
        self, request: catalog.PublishSegmentsRequest, context: Any
    ) -> catalog.PublishSegmentsResponse:
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        found = self.media[request.title]
        rendition = next(r for r in found.renditions if r.rendition_id == request.rendition_id)
        rendition.init_object_key = rendition.init_object_key or request.init_object_key
        stored = self.segments.setdefault((request.title, request.rendition_id), {})
        lost = []
        for segment in request.segments:
            first = stored.setdefault(segment.number, segment)
            if first is segment:
                self.publications.append((request.rendition_id, segment.number, segment.object_key))
            elif first.object_key != segment.object_key:
                lost.append(segment.object_key)
        return catalog.PublishSegmentsResponse(state=titles.Title.STATE_PLAYABLE, superseded_object_keys=lost)

    async def PublishExtras(
        self, request: catalog.PublishExtrasRequest, context: Any
    ) -> catalog.PublishExtrasResponse:
        self.media[request.title].extras.CopyFrom(request.extras)
        return catalog.PublishExtrasResponse()

    async def FailMedia(self, request: catalog.FailMediaRequest, context: Any) -> catalog.FailMediaResponse:
        self.failures[request.title] = request.error
        return catalog.FailMediaResponse()

    async def GetMedia(self, request: catalog.GetMediaRequest, context: Any) -> catalog.GetMediaResponse:
        if request.title not in self.media:
            raise NotFound(request.title)
        return catalog.GetMediaResponse(media=self.media[request.title])

    async def ListSegments(
        self, request: catalog.ListSegmentsRequest, context: Any
    ) -> catalog.ListSegmentsResponse:
        stored = self.segments.get((request.title, request.rendition_id), {})
        numbers = [number for number in sorted(stored) if number >= request.first_segment]
        return catalog.ListSegmentsResponse(segments=[stored[number] for number in numbers])

    async def _unused(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    CreateTitle = GetTitle = ListTitles = UpdateTitle = DeleteTitle = _unused
    PublishTitle = UnpublishTitle = CheckAvailability = _unused
    SetArtwork = ClearArtwork = GetArtwork = BatchGetTitles = _unused

    def numbers(self, title: str) -> dict[str, list[int]]:
        """Published segment numbers by rendition."""
        return {key[1]: sorted(found) for key, found in self.segments.items() if key[0] == title}


class Preprocessor(preprocessor_grpc.PreprocessorServiceServicer):
    """Windows of 20 s; H.264 in two rungs, AV1 in one, AAC when there is sound."""

    async def PlanWindows(
        self, request: preprocessor.PlanWindowsRequest, context: Any
    ) -> preprocessor.PlanWindowsResponse:
        frames = sum(run.count for run in request.timeline.frame_runs)
        step = WINDOW_CHUNKS * CHUNK_FRAMES
        return preprocessor.PlanWindowsResponse(
            windows=[
                preprocessor.Window(start_frame=at, frame_count=min(step, frames - at))
                for at in range(0, frames, step)
            ]
        )

    async def PlanLadder(
        self, request: preprocessor.PlanLadderRequest, context: Any
    ) -> preprocessor.PlanLadderResponse:
        h264 = [media.VideoRung(rendition_id=f"h264-{h}", width=h * 16 // 9, height=h) for h in (720, 480)]
        av1 = [media.VideoRung(rendition_id="av1-480", width=854, height=480)]
        aac = media.AudioRung(
            rendition_id="aac-128-und-0", stream_index=1, codec=media.AUDIO_CODEC_AAC, language="und"
        )
        return preprocessor.PlanLadderResponse(
            ladder=media.Ladder(
                videos=[
                    media.VideoLadder(codec=media.VIDEO_CODEC_H264, rungs=h264),
                    media.VideoLadder(codec=media.VIDEO_CODEC_AV1, rungs=av1),
                ],
                audios=[aac] if request.report.audios else [],
                reason=f"{len(request.points)} points{request.problem}",
            )
        )

    async def InspectSource(
        self, request: preprocessor.InspectSourceRequest, context: Any
    ) -> preprocessor.InspectSourceResponse:
        return preprocessor.InspectSourceResponse()

    async def MakeArtwork(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def RankHighlights(
        self, request: preprocessor.RankHighlightsRequest, context: Any
    ) -> preprocessor.RankHighlightsResponse:
        return preprocessor.RankHighlightsResponse(highlights=request.given)


def peer(name: str, full_name: str, add: Callable[[Any, Any], None], servicer: object) -> Build:
    """A `build` that serves a scripted peer."""

    async def build(context: Context) -> ServiceApp:
        return ServiceApp(name=name, grpc_services=[full_name], register=lambda server: add(servicer, server))

    return build


def catalog_build(servicer: object) -> Build:
    """Serve a scripted catalogue."""
    return peer(
        "catalog",
        "kino.catalog.v1.CatalogService",
        catalog_grpc.add_CatalogServiceServicer_to_server,
        servicer,
    )


def preprocessor_build(servicer: object) -> Build:
    """Serve a scripted preprocessor."""
    return peer(
        "preprocessor",
        "kino.preprocessor.v1.PreprocessorService",
        preprocessor_grpc.add_PreprocessorServiceServicer_to_server,
        servicer,
    )


CAPABILITIES = encoder.Capabilities(
    task_kinds=[k for k in encoder.TaskKind.values() if k],
    video_codecs=[media.VIDEO_CODEC_H264, media.VIDEO_CODEC_AV1],
    audio_codecs=[media.AUDIO_CODEC_AAC, media.AUDIO_CODEC_OPUS],
)


class Refused(Exception):
    """Raised by a script: the task fails with this status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


Script = Callable[["Worker", scheduler.Task], Awaitable[Any]]


@dataclass(kw_only=True)
class Worker:
    """Speaks `Work` as a real worker does: keeps what isn't settled, dials in again, names what it holds."""

    channel: grpc.aio.Channel
    objects: ObjectStore
    seconds: int = 40
    name: str = "w1"
    slots: int = 2
    script: Script | None = None
    capabilities: encoder.Capabilities = field(default_factory=lambda: CAPABILITIES)
    taken: list[scheduler.Task] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    settled: list[tuple[str, bool]] = field(default_factory=list)
    most_at_once: int = 0
    _held: dict[str, tuple[int, asyncio.Task[None] | None, api.WorkRequest | None]] = field(
        default_factory=dict
    )
    _out: asyncio.Queue[api.WorkRequest] = field(default_factory=asyncio.Queue)

    async def run(self) -> None:
        """Work until cancelled."""
        stub = SchedulerServiceStub(self.channel)
        while True:
            try:
                await self._session(stub)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)

    async def _session(self, stub: SchedulerServiceStub) -> None:
        self._out = asyncio.Queue()
        held = [api.HeldTask(task=task, fence=entry[0]) for task, entry in self._held.items()]
        hello = api.Hello(
            worker_id=self.name, capabilities=self.capabilities, slot_count=self.slots, held=held
        )
        self._out.put_nowait(api.WorkRequest(hello=hello))

        async def updates() -> AsyncIterator[api.WorkRequest]:
            while True:
                yield await self._out.get()

        async for word in stub.Work(updates()):
            kind = word.WhichOneof("message")
            if kind == "welcome":
                self._welcomed({kept.task for kept in word.welcome.kept})
            elif kind == "task":
                self.taken.append(word.task)
                running = asyncio.create_task(self._do(word.task))
                self._held[word.task.name] = (word.task.fence, running, None)
                self.most_at_once = max(self.most_at_once, len(self._held))
            elif kind == "stop":
                self.stopped.append(word.stop.task)
                self._drop(word.stop.task)
            else:
                self.settled.append((word.settled.task, word.settled.accepted))
                self._held.pop(word.settled.task, None)

    def _welcomed(self, kept: set[str]) -> None:
        for task, (_, _, last) in list(self._held.items()):
            if task not in kept:
                self._drop(task)
            elif last is not None:
                self._out.put_nowait(last)

    def _drop(self, task: str) -> None:
        entry = self._held.pop(task, None)
        if entry is not None and entry[1] is not None:
            entry[1].cancel()

    async def _do(self, task: scheduler.Task) -> None:
        try:
            result = await (self.script(self, task) if self.script else self.result(task))
            done = api.TaskDone(task=task.name, fence=task.fence)
            getattr(done, task.WhichOneof("spec") or "").CopyFrom(result)
            word = api.WorkRequest(done=done)
        except Refused as error:
            failed = api.TaskFailed(
                task=task.name, fence=task.fence, command="ffmpeg -i x", stderr_lines=["bad"]
            )
            failed.error.code, failed.error.message = error.code, str(error)
            word = api.WorkRequest(failed=failed)
        if task.name in self._held:
            self._held[task.name] = (task.fence, None, word)
            self._out.put_nowait(word)

    def say(self, word: api.WorkRequest) -> None:
        """Say something on the open stream."""
        self._out.put_nowait(word)

    async def result(self, task: scheduler.Task) -> Any:
        """What a task should come to."""
        kind = task.WhichOneof("spec")
        if kind == "probe":
            return self._probed()
        if kind == "analyze":
            return self._analysed(task.analyze)
        if kind == "encode_video":
            spec = task.encode_video
            prefix = spec.output_prefix
            made = [
                await self._rendition(prefix, rung.rendition_id, [spec.chunk.number], task.attempt)
                for rung in spec.rungs
            ]
            return encoder.EncodeVideoResult(renditions=made, command="ffmpeg -i source")
        if kind == "trial":
            point = media.TrialPoint(rendition_id="h264-480", crf=20, bits_per_second=9, vmaf=90)
            return encoder.TrialResult(points=[point])
        if kind == "extract":
            return await self._extracted(task)
        audio = task.encode_audio
        numbers = list(range(audio.first_segment, len(audio.segment_start_ticks)))
        made_audio = await self._rendition(
            audio.output_prefix, audio.rung.rendition_id, numbers, task.attempt
        )
        return encoder.EncodeAudioResult(rendition=made_audio, command="ffmpeg -i source")

    def _probed(self) -> source.ProbeResult:
        timeline = media.Timeline(
            timescale=FPS, frame_runs=[media.FrameRun(count=self.seconds * FPS, duration_ticks=1)]
        )
        rate = media.Rational(numerator=FPS, denominator=1)
        video = source.SourceVideo(codec="h264", width=1280, height=720, frame_rate=rate, time_base=rate)
        report = source.SourceReport(container="mov", video=video)
        report.duration.FromSeconds(self.seconds)
        report.audios.add(stream_index=1, codec="aac", language="und")
        return source.ProbeResult(report=report, timeline=timeline)

    async def _extracted(self, task: scheduler.Task) -> source.ExtractResult:
        key = f"{task.extract.output_prefix}/extras/vtt-eng-0-{task.fence}.vtt"
        await self.objects.put(key, b"WEBVTT\n")
        track = media.TextTrack(track_id="vtt-eng-0", object_key=key, size_bytes=7, sha256=bytes(32))
        return source.ExtractResult(extras=media.Extras(text_tracks=[track]), left_out=[LEFT_OUT])

    def _analysed(self, spec: source.AnalyzeTask) -> source.AnalyzeResult:
        assert sum(run.count for run in spec.timeline.frame_runs) == self.seconds * FPS
        end = spec.start_frame + spec.frame_count
        starts = range(spec.start_frame, end, CHUNK_FRAMES)
        return source.AnalyzeResult(
            chunks=[
                source.Chunk(
                    number=spec.first_chunk_number + i,
                    start_frame=start,
                    frame_count=min(CHUNK_FRAMES, end - start),
                    start_ticks=start,
                    duration_ticks=min(CHUNK_FRAMES, end - start),
                )
                for i, start in enumerate(starts)
            ]
        )

    async def _rendition(
        self, prefix: str, rendition: str, numbers: list[int], attempt: int
    ) -> encoder.EncodedRendition:
        init = f"{prefix}/{rendition}/init.mp4"
        digest = hashlib.sha256(rendition.encode()).digest()
        await self.objects.put(init, rendition.encode())
        made = encoder.EncodedRendition(
            rendition_id=rendition, init_object_key=init, init_sha256=digest, codecs="avc1", timescale=FPS
        )
        for number in numbers:
            key = f"{prefix}/{rendition}/{number:06d}-{attempt}.m4s"
            body = f"{self.name} {rendition} {number} {attempt}".encode()
            await self.objects.put(key, body)
            made.segments.append(
                media.Segment(
                    number=number,
                    start_ticks=number * CHUNK_FRAMES,
                    duration_ticks=CHUNK_FRAMES,
                    object_key=key,
                    size_bytes=len(body),
                    sha256=hashlib.sha256(body).digest(),
                    fragments=[media.Fragment(size_bytes=len(body))],
                )
            )
        return made
