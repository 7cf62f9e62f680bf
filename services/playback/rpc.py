"""`kino.playback.v1.PlaybackService`: Protobuf to domain and back.

The answers that carry media are bytes already (see `chunks`), so the streaming methods are registered
without a serializer; what surrounds every call (access, validation, errors) stays the same. Those that may
stall write to the context instead of yielding (hence `type: ignore`): the watch over readers can end them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Any, cast

import grpc
import grpc.aio

from kino.catalog.v1 import resources_pb2 as catalog
from kino.media.v1 import media_pb2
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1 import playback_pb2_grpc
from kino.playback.v1 import resources_pb2 as res
from services.playback import dash, hls
from services.playback.chunks import Buffers, Track, http_body
from services.playback.clients import VIDEO_CODECS
from services.playback.errors import ExtraNotFound, RenditionNotFound, TitleReplaced
from services.playback.extras import extra_file
from services.playback.http import Answer, answer, text_answer
from services.playback.leases import Leases
from services.playback.model import Lease, Rendition, TitleMedia
from services.playback.player import INIT, End, EndReason, Header, Player, Position, Wanted
from services.playback.readers import Readers
from services.playback.titles import Titles
from services.playback.tokens import LeaseTokens
from services.playback.turns import Turns
from services.playback.usecases import StartPlayback
from services.runtime.auth import principal, require_user
from services.runtime.clock import Clock
from services.runtime.objects import ObjectStore
from services.runtime.region import Regions
from services.runtime.wire import duration

SERVICE = "kino.playback.v1.PlaybackService"

#: Payload of one HttpBody message.
_HTTP_BYTES = 512 << 10
#: A stream that has sent less than this has hardly begun.
_NEW_BYTES = 1 << 20
_SEGMENT_CACHE = "private, max-age=86400, immutable"
_MANIFEST_CACHE = "private, no-cache"
_HLS_TYPE = "application/vnd.apple.mpegurl"
_DASH_TYPE = "application/dash+xml"
_REASONS = {
    EndReason.TITLE: res.PlayEnd.REASON_END_OF_TITLE,
    EndReason.READY_PART: res.PlayEnd.REASON_END_OF_READY_PART,
    EndReason.WINDOW: res.PlayEnd.REASON_END_OF_WINDOW,
    EndReason.MOVED: res.PlayEnd.REASON_MOVED,
    EndReason.REPLACED: res.PlayEnd.REASON_REPLACED,
}


class PlaybackServicer(playback_pb2_grpc.PlaybackServiceServicer):
    """Serves playback; its streams yield serialised messages, hence `Any`."""

    def __init__(
        self,
        *,
        start: StartPlayback,
        player: Player,
        leases: Leases,
        readers: Readers,
        titles: Titles,
        tokens: LeaseTokens,
        clock: Clock,
        regions: Regions,
        objects: ObjectStore,
    ) -> None:
        """`objects` holds the files beside the media."""
        self._start = start
        self._regions = regions
        self._objects = objects
        self._player = player
        self._leases = leases
        self._readers = readers
        self._turns = Turns()
        self._titles = titles
        self._tokens = tokens
        self._clock = clock

    async def StartPlayback(self, request: pb.StartPlaybackRequest, context: Any) -> pb.StartPlaybackResponse:
        """See the contract."""
        started = await self._start(
            principal(),
            title=request.title,
            profile=request.profile,
            device=request.device,
            region=self._regions.of(context),
            request_id=request.request_id.lower(),
        )
        token = self._tokens.seal(started.lease)
        folder = f"/v1/playback/{token}/manifests"
        return pb.StartPlaybackResponse(
            lease=_lease(started.lease, token=token),
            resume_offset=duration(started.resume_ns),
            choice=_choice(started.media),
            hls_path=f"{folder}/master.m3u8",
            dash_path=f"{folder}/manifest.mpd",
            edge_addresses=started.edges,
        )

    async def Play(self, request: pb.PlayRequest, context: Any) -> None:  # type: ignore[override]
        """See the contract."""
        wanted = Wanted(
            offset_ns=request.offset.ToNanoseconds() if request.HasField("offset") else None,
            codec=VIDEO_CODECS.get(request.video_codec),
            max_height=request.max_height,
            audio_rendition_id=request.audio_rendition_id,
            segment_count=request.segment_count,
            resume=_position(request.resume) if request.HasField("resume") else None,
        )
        lease = self._tokens.open(request.lease_token)
        await self._send(context, lease, self._player.play(lease, wanted), moves=True)

    async def ReadSegments(self, request: pb.ReadSegmentsRequest, context: Any) -> None:  # type: ignore[override]
        """See the contract."""
        lease = self._tokens.open(request.lease_token)
        count, start = request.segment_count or 1, request.first_offset_bytes
        media = self._player.read(lease, request.rendition_id, request.first_segment, count, start)
        await self._send(context, lease, media)

    async def _send(
        self,
        context: Any,
        lease: Lease,
        messages: AsyncIterator[Buffers | Header | End],
        *,
        moves: bool = False,
    ) -> None:
        """Write the messages; a stream that `moves` ends early when the node goes down."""
        self._turns.arrived()
        with self._readers.reading(lease) as reader:
            # Closed here and now when the call is cancelled, not when the garbage collector finds it.
            async with aclosing(cast(AsyncGenerator[Buffers | Header | End, None], messages)) as closed:
                async for message in closed:
                    data = _wire(message)
                    await self._turns.take(new=reader.taken_bytes < _NEW_BYTES)
                    await context.write(data)
                    reader.moved(sum(map(len, data)))
                    if moves and self._readers.leaving and isinstance(message, tuple):
                        await context.write(_wire(End(reason=EndReason.MOVED)))
                        return

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:
        """See the contract."""
        lease = self._tokens.open(request.lease_token)
        expire_time = await self._leases.renew(lease)
        return pb.RenewLeaseResponse(lease=_lease(lease, token=request.lease_token, expire_time=expire_time))

    async def EndPlayback(self, request: pb.EndPlaybackRequest, context: Any) -> pb.EndPlaybackResponse:
        """See the contract."""
        await self._leases.end(self._tokens.open(request.lease_token))
        return pb.EndPlaybackResponse()

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Any) -> pb.ListLeasesResponse:
        """See the contract."""
        require_user(request.parent)
        return pb.ListLeasesResponse(
            leases=[_lease(lease) for lease in await self._leases.live(request.parent)]
        )

    async def GetManifest(self, request: pb.GetManifestRequest, context: Any) -> AsyncIterator[Any]:
        """See the contract."""
        lease = self._tokens.open(request.lease_token)
        await self._leases.take_up(lease)
        media = await self._titles.get(lease.title, lease.job)
        if media.replaced and not media.complete:
            raise TitleReplaced(media.title)  # a player would ask for what is missing for ever
        text, kind = await self._manifest(media, request.file)
        plain = text.encode()
        etag = hashlib.sha256(plain).hexdigest()[:32]
        reply, data = text_answer(_metadata(context), plain, etag=etag, cache_control=_MANIFEST_CACHE)
        await context.send_initial_metadata(reply.headers)
        yield http_body(kind, [memoryview(data)[reply.start : reply.end]])

    async def GetExtra(self, request: pb.GetExtraRequest, context: Any) -> AsyncIterator[Any]:
        """See the contract."""
        lease = self._tokens.open(request.lease_token)
        await self._leases.take_up(lease)
        source = cast(catalog.Media, (await self._titles.get(lease.title, lease.job)).message)
        file = extra_file(source.extras, request.file)
        if file is None:
            raise ExtraNotFound(request.file)
        data, etag, asked = await self._objects.get(file.object_key), file.sha256.hex(), _metadata(context)
        if file.content_type.startswith("text/"):
            reply, data = text_answer(asked, data, etag=etag, cache_control=_SEGMENT_CACHE)
        else:
            reply = answer(asked, size_bytes=len(data), etag=etag, cache_control=_SEGMENT_CACHE)
        await context.send_initial_metadata(reply.headers)
        yield http_body(file.content_type, [memoryview(data)[reply.start : reply.end]])

    async def GetSegment(self, request: pb.GetSegmentRequest, context: Any) -> None:  # type: ignore[override]
        """See the contract."""
        lease = self._tokens.open(request.lease_token)
        number = INIT if request.file == "init.mp4" else int(request.file.removesuffix(".m4s"))
        with self._readers.reading(lease) as reader:
            source = await self._player.source(lease, request.rendition_id, number)
            size_bytes = await source.reading.size_bytes()
            etag = source.sha256.hex()
            reply = answer(_metadata(context), size_bytes=size_bytes, etag=etag, cache_control=_SEGMENT_CACHE)
            await context.send_initial_metadata(reply.headers)
            kind = "video/mp4" if source.track is Track.VIDEO else "audio/mp4"
            for start in _starts(reply):
                end = min(start + _HTTP_BYTES, reply.end)
                views = (await source.reading.at(start, end)).views(start, end)
                await context.write(http_body(kind, views))
                reader.moved(end - start)

    async def _manifest(self, media: TitleMedia, file: str) -> tuple[str, str]:
        name, _, suffix = file.rpartition(".")
        if file == "master.m3u8":
            return hls.master(media), _HLS_TYPE
        text = next((track for track in media.texts if track.track_id == name), None)
        if suffix == "m3u8" and text is not None:
            return hls.text_playlist(media, text), _HLS_TYPE
        if file == f"{hls.STORYBOARD}.m3u8" and media.storyboard:
            return hls.storyboard_playlist(media, media.storyboard), _HLS_TYPE
        if suffix == "m3u8":
            rendition = media.rendition(name)
            segments = await self._titles.prefix(media, rendition)
            complete = rendition.complete and len(segments) == rendition.ready_segment_count
            return hls.media_playlist(rendition, segments, complete=complete), _HLS_TYPE
        if file != "manifest.mpd":
            raise RenditionNotFound(file)
        published = {r.rendition_id: await self._titles.prefix(media, r) for r in media.renditions}
        return dash.manifest(media, published, self._clock.now()), _DASH_TYPE


def register(servicer: PlaybackServicer, server: grpc.aio.Server) -> None:
    """Add the servicer to a server, its streams without a serializer."""
    recorded = _Recorder()
    playback_pb2_grpc.add_PlaybackServiceServicer_to_server(servicer, cast(grpc.aio.Server, recorded))
    handlers = {
        name: grpc.unary_stream_rpc_method_handler(
            handler.unary_stream,
            request_deserializer=handler.request_deserializer,
            response_serializer=_joined,
        )
        if handler.response_streaming
        else handler
        for name, handler in recorded.handlers.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class _Recorder:
    """Takes what the generated code would add to a server."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Not needed: the same methods come by name."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Keep the handlers."""
        self.handlers = handlers


def _joined(message: Buffers) -> bytes:
    """For gRPC's own server; on the port of media the parts are sent from where they lie."""
    return b"".join(message)


def _starts(reply: Answer) -> list[int]:
    """Where the messages of an answer begin; one without bytes still tells its content type."""
    return list(range(reply.start, reply.end, _HTTP_BYTES)) or [reply.start]


def _metadata(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _lease(lease: Lease, *, token: str = "", expire_time: datetime | None = None) -> res.Lease:
    message = res.Lease(
        name=lease.name, token=token, profile=lease.profile, title=lease.title, device=lease.device
    )
    message.start_time.FromDatetime(lease.start_time)
    message.expire_time.FromDatetime(expire_time or lease.expire_time)
    return message


def _choice(media: TitleMedia) -> res.StreamChoice:
    source = cast(catalog.Media, media.message)
    choice = res.StreamChoice(
        renditions=[rendition for rendition in source.renditions if rendition.ready_segment_count],
        timeline=source.timeline,
        ready_segment_count=media.ready_segment_count,
        complete=media.complete,
        highlights=source.highlights,
        extras=source.extras if source.HasField("extras") else None,
    )
    if media.duration_ns:
        choice.duration.FromNanoseconds(media.duration_ns)
    return choice


def _rendition(media: TitleMedia, rendition: Rendition) -> media_pb2.Rendition:
    renditions = cast(catalog.Media, media.message).renditions
    return next(message for message in renditions if message.rendition_id == rendition.rendition_id)


def _header(header: Header) -> res.PlayHeader:
    entry = header.entry
    return res.PlayHeader(
        video=_rendition(header.media, header.video),
        audio=_rendition(header.media, header.audio) if header.audio else None,
        segment_number=header.segment_number,
        segment_start=duration(entry.segment_start_ns),
        media_start=duration(entry.media_start_ns),
        trim=duration(entry.trim_ns),
        trim_frame_count=entry.trim_frame_count,
        offset=duration(entry.offset_ns),
        frame_number=entry.frame,
        combined_init=header.combined_init,
        video_init=header.video_init,
        audio_init=header.audio_init,
    )


def _wire(message: Buffers | Header | End) -> Buffers:
    if isinstance(message, tuple):
        return message
    if isinstance(message, Header):
        return (pb.PlayResponse(header=_header(message)).SerializeToString(),)
    return (pb.PlayResponse(end=_end(message)).SerializeToString(),)


def _position(position: res.StreamPosition) -> Position:
    return Position(
        video_id=position.video_rendition_id,
        number=position.segment_number,
        track=Track(position.track),
        offset_bytes=position.offset_bytes,
    )


def _end(end: End) -> res.PlayEnd:
    offset = None if end.next_offset_ns is None else duration(end.next_offset_ns)
    return res.PlayEnd(reason=_REASONS[end.reason], next_offset=offset)
