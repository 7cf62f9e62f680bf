from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import client
from cli.client import Kino
from cli.playing import receive, stream
from kino.playback.v1 import playback_pb2
from kino.playback.v1.resources_pb2 import TRACK_AUDIO, TRACK_VIDEO, MediaChunk, PlayEnd, StreamPosition
from services.media.time import ticks_to_ns_up

SEGMENTS = 4
SIZES = {TRACK_VIDEO: 1_000, TRACK_AUDIO: 100}
STARTS_NS = [ticks_to_ns_up(120_120 * number, 24_000) for number in range(SEGMENTS)]


def content(track: Any, segment: int) -> bytes:
    return bytes((track * 31 + segment * 7 + at) % 251 for at in range(SIZES[track]))


def loss(code: grpc.StatusCode, details: str = "") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


class Node:
    """Answers `Play` with pieces of some size, and breaks off each answer after so many messages."""

    def __init__(self, cuts: list[int], piece_bytes: int, code: grpc.StatusCode, details: str) -> None:
        self.cuts, self.piece_bytes, self.error = cuts, piece_bytes, loss(code, details)
        self.requests: list[playback_pb2.PlayRequest] = []

    def stub(self, _: object) -> Node:
        return self

    async def Play(self, request: playback_pb2.PlayRequest) -> AsyncIterator[Any]:  # noqa: N802
        self.requests.append(request)
        left = self.cuts.pop(0) if self.cuts else 10**9
        for message in self.messages(request):
            if left == 0:
                raise self.error
            left -= 1
            yield message

    def messages(self, request: playback_pb2.PlayRequest) -> list[playback_pb2.PlayResponse]:
        resume = request.resume
        at_ns = request.offset.ToNanoseconds()
        first = max(n for n, start in enumerate(STARTS_NS) if start <= at_ns)
        if request.HasField("resume"):
            first = resume.segment_number
        until = first + request.segment_count if request.segment_count else SEGMENTS
        header = playback_pb2.PlayResponse()
        header.header.segment_number = first
        header.header.combined_init = b"init"
        header.header.video.rendition_id = "h264-360"
        header.header.offset.FromNanoseconds(at_ns)
        header.header.audio.SetInParent()
        media = [
            playback_pb2.PlayResponse(media=piece)
            for segment in range(first, until)
            for track in (TRACK_VIDEO, TRACK_AUDIO)
            for piece in self.pieces(track, segment, resume)
        ]
        head = [] if request.HasField("resume") else [header]
        return [*head, *media, playback_pb2.PlayResponse(end=PlayEnd())]

    def pieces(self, track: Any, segment: int, resume: StreamPosition) -> list[MediaChunk]:
        data, step, start = content(track, segment), self.piece_bytes, 0
        if (segment, track) <= (resume.segment_number, resume.track):
            same = (segment, track) == (resume.segment_number, resume.track)
            start = resume.offset_bytes if same else len(data)
        return [
            MediaChunk(
                track=track,
                segment_number=segment,
                offset_bytes=at,
                data=data[at : at + step],
                last=at + step >= len(data),
            )
            for at in range(start, len(data), step)
        ]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LONGEST_PAUSE_S", 0.0)


LOSSES = [
    (grpc.StatusCode.UNAVAILABLE, ""),
    (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
]


@given(
    cuts=st.lists(st.integers(0, 12), max_size=6),
    piece_bytes=st.sampled_from([90, 256, 1_000]),
    first=st.integers(0, SEGMENTS - 1),
    count=st.integers(0, SEGMENTS),
    lost=st.sampled_from(LOSSES),
)
async def test_a_stream_that_is_lost_anywhere_comes_whole_and_once(
    cuts: list[int], piece_bytes: int, first: int, count: int, lost: tuple[grpc.StatusCode, str]
) -> None:
    count = min(count, SEGMENTS - first)
    node = Node(cuts, piece_bytes, *lost)
    request = playback_pb2.PlayRequest(segment_count=count)
    request.offset.FromNanoseconds(STARTS_NS[first])

    got = await receive(cast(Kino, node), request)

    wanted = range(first, first + count if count else SEGMENTS)
    assert got.data == b"init" + b"".join(content(t, n) for n in wanted for t in (TRACK_VIDEO, TRACK_AUDIO))
    assert got.end is not None


async def test_a_node_that_goes_down_is_left_at_once_for_another() -> None:
    node = Node([], 100, *LOSSES[0])
    whole = node.messages(playback_pb2.PlayRequest())
    moved = playback_pb2.PlayResponse(end=PlayEnd(reason=PlayEnd.REASON_MOVED))
    answers = iter([[*whole[:7], moved]])
    node.messages = lambda request: next(answers, None) or Node.messages(node, request)  # type: ignore[method-assign]
    got = await receive(cast(Kino, node), playback_pb2.PlayRequest())
    assert got.data == b"init" + b"".join(message.media.data for message in whole)
    assert got.end == PlayEnd()


async def test_a_refusal_is_no_loss() -> None:
    node = Node([3], 100, grpc.StatusCode.PERMISSION_DENIED, "the lease was ended")
    with pytest.raises(grpc.aio.AioRpcError):
        await receive(cast(Kino, node), playback_pb2.PlayRequest())
    assert len(node.requests) == 1


async def test_a_stream_that_brings_nothing_new_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_TRIES", 3)
    node = Node([5, *[0] * 10], 100, grpc.StatusCode.UNAVAILABLE, "")
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in stream(cast(Kino, node), playback_pb2.PlayRequest()):
            pass
    assert len(node.requests) == 1 + 3
