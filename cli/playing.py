"""Playing as a program does: start, receive a stream into memory, record, end."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from cli.client import Kino
from kino.history.v1 import history_pb2, history_pb2_grpc
from kino.history.v1.resources_pb2 import Interval, View
from kino.playback.v1 import playback_pb2, playback_pb2_grpc, resources_pb2
from services.runtime.errors import Unavailable


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


async def receive(
    kino: Kino, request: playback_pb2.PlayRequest, *, break_after: int | None = None
) -> Received:
    """Read a stream to its end, or break it off after so many whole segments.

    Raises `Unavailable` when it ends before anything came.
    """
    header, end, data, pieces = None, None, bytearray(), 0
    call = kino.stub(playback_pb2_grpc.PlaybackServiceStub).Play(request)
    async for message in call:
        if message.HasField("header"):
            header = message.header
            data += header.combined_init
        elif message.HasField("media"):
            data += message.media.data
            pieces += message.media.last
            tracks = 2 if header is not None and header.HasField("audio") else 1
            if break_after is not None and pieces == break_after * tracks:
                call.cancel()
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
