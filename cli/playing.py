"""Playing as a program does: start, receive a stream that no lost node interrupts, record, end."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from cli.client import Kino, Patience, channel_to
from kino.history.v1 import history_pb2, history_pb2_grpc
from kino.history.v1.resources_pb2 import Interval, View
from kino.playback.v1 import playback_pb2, playback_pb2_grpc, resources_pb2
from services.runtime.errors import Unavailable

#: An edge that can't be reached within this time is passed over.
EDGE_WITHIN_S = 3.0
#: One that froze is noticed within 20 s: gRPC alone waits a minute for the answer to a ping.
_EDGE_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
)


@dataclass(frozen=True, kw_only=True)
class Received:
    """A stream as it came: the combined init segment and the media after it, nothing dropped."""

    header: resources_pb2.PlayHeader
    data: bytes
    #: None when the reader stopped before the end.
    end: resources_pb2.PlayEnd | None


async def start_playback(kino: Kino, title: str, device: str) -> playback_pb2.StartPlaybackResponse:
    """Take a lease for the user's first profile."""
    request = playback_pb2.StartPlaybackRequest(
        title=title, profile=await kino.profile(), device=device, request_id=str(uuid.uuid4())
    )
    return await kino.stub(playback_pb2_grpc.PlaybackServiceStub).StartPlayback(request)


async def stream(
    kino: Kino, request: playback_pb2.PlayRequest, edges: Sequence[str] = ()
) -> AsyncGenerator[playback_pb2.PlayResponse, None]:
    """The messages of `Play`, as if no node could be lost.

    `edges` are `StartPlaybackResponse.edge_addresses`: they are tried in their order, then the gateway. When
    the connection or the node breaks, or goes down, it goes on at the next byte, from whichever node answers:
    the bytes of a segment are the same everywhere. Raises what the gateway answers when that is no loss, and
    the last error when no new byte comes for half a minute.
    """
    reached = _Reached()
    for address in edges:
        with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError):
            async with channel_to(address, *_EDGE_OPTIONS) as channel:
                async with asyncio.timeout(EDGE_WITHIN_S):
                    await channel.channel_ready()
                async for message in playback_pb2_grpc.PlaybackServiceStub(channel).Play(request):
                    if message.end.reason == resources_pb2.PlayEnd.REASON_MOVED:
                        break
                    if reached.take(message):
                        yield message
                else:
                    return
        # Whatever an edge refuses: the next one or the gateway may know better.
        request = reached.rest(request)
    patience = Patience()
    while True:
        try:
            async for message in kino.stub(playback_pb2_grpc.PlaybackServiceStub).Play(request):
                if message.end.reason == resources_pb2.PlayEnd.REASON_MOVED:
                    break
                if reached.take(message):
                    patience.news()
                    yield message
            else:
                return
            await patience.after(None)
        except grpc.aio.AioRpcError as error:
            await patience.after(error)
        request = reached.rest(request)


@dataclass(kw_only=True)
class _Reached:
    """How far a stream has come."""

    header: resources_pb2.PlayHeader | None = None
    #: The segment that the last request began with.
    first_segment: int = 0
    lacking: resources_pb2.StreamPosition | None = None

    def take(self, message: playback_pb2.PlayResponse) -> bool:
        """It arrived; whether it is new. A header comes again when nothing came after it."""
        if message.HasField("header"):
            if self.header is not None and self.lacking is None:
                return False
            if self.header is None:
                self.first_segment = message.header.segment_number
            self.header = message.header
        elif message.HasField("media") and self.header is not None:
            self.lacking = resources_pb2.StreamPosition(
                video_rendition_id=self.header.video.rendition_id,
                segment_number=message.media.segment_number,
                track=message.media.track,
                offset_bytes=message.media.offset_bytes + len(message.media.data),
            )
        return True

    def rest(self, request: playback_pb2.PlayRequest) -> playback_pb2.PlayRequest:
        """The request for what is lacking."""
        if self.header is None or self.lacking is None:
            return request
        rest = playback_pb2.PlayRequest()
        rest.CopyFrom(request)
        rest.offset.CopyFrom(self.header.offset)
        rest.resume.CopyFrom(self.lacking)
        if request.segment_count:
            rest.segment_count += self.first_segment - self.lacking.segment_number
            self.first_segment = self.lacking.segment_number
        return rest


async def receive(
    kino: Kino,
    request: playback_pb2.PlayRequest,
    edges: Sequence[str] = (),
    *,
    break_after: int | None = None,
) -> Received:
    """Read a stream to its end, or break it off after so many whole segments.

    Raises `Unavailable` when it ends before anything came.
    """
    header, end, data, pieces = None, None, bytearray(), 0
    messages = stream(kino, request, edges)
    async with contextlib.aclosing(messages):
        async for message in messages:
            if message.HasField("header"):
                header = message.header
                data += header.combined_init
            elif message.HasField("media"):
                data += message.media.data
                pieces += message.media.last
                tracks = 2 if header is not None and header.HasField("audio") else 1
                if break_after is not None and pieces == break_after * tracks:
                    break
            else:
                end = message.end
    if header is None:
        raise Unavailable(1_000)
    return Received(header=header, data=bytes(data), end=end)


async def stop_at(
    kino: Kino, token: str, header: resources_pb2.PlayHeader, position: Duration, *, sequence: int = 1
) -> View:
    """Record that the viewer watched from the header's offset to `position`, and end the playback."""
    watched = Interval(start_offset=header.offset, end_offset=position)
    request = history_pb2.RecordProgressRequest(
        lease_token=token, sequence=sequence, position=position, intervals=[watched]
    )
    answer = await kino.stub(history_pb2_grpc.HistoryServiceStub).RecordProgress(request)
    await end_playback(kino, token)
    return answer.view


async def end_playback(kino: Kino, token: str) -> None:
    """Give the lease back."""
    request = playback_pb2.EndPlaybackRequest(lease_token=token)
    await kino.stub(playback_pb2_grpc.PlaybackServiceStub).EndPlayback(request)
