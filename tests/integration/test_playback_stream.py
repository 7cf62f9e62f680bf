"""What holds for a stream whatever happens to it: every frame once, every byte once, an end with a reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kino.media.v1.media_pb2 import VIDEO_CODEC_AV1, VIDEO_CODEC_H264
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1 import resources_pb2 as res
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.media.time import NS_PER_SECOND
from services.playback import readers
from services.playback.bootstrap import build as build_playback
from services.runtime import metrics
from services.runtime.app import Running
from services.runtime.clock import ManualClock
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving, user_token
from tests.support.decoding import decode_pictures
from tests.support.long_title import LongTitle
from tests.support.published import Film, Publisher
from tests.support.streams import Broken, play, resume
from tests.support.watching import FILM, VIEWER, Plans, accounts, start

DURATION_NS = -(-FILM.duration_ticks * NS_PER_SECOND // FILM.timescale)
RENDITIONS = [(VIDEO_CODEC_H264, 360), (VIDEO_CODEC_H264, 240), (VIDEO_CODEC_AV1, 240)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def process(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Running]:
    async with serving(
        tmp_path,
        clock=clock,
        catalog=build_catalog,
        history=build_history,
        billing=Plans(limits={VIEWER: 5}).build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


@pytest.fixture
async def stub(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process, user_token(process, VIEWER, "viewer")) as channel:
        yield PlaybackServiceStub(channel)


async def test_any_offset_shows_its_frame_and_a_switch_there_loses_and_repeats_none(
    stub: Any, process: Running, film: Film
) -> None:
    title = await Publisher(process, film).publish_all()
    token = (await start(stub, title)).lease.token
    loop = asyncio.get_running_loop()

    async def frames(offset_ns: int, rendition: tuple[Any, int]) -> tuple[list[int | None], int | None]:
        """The numbers of the frames shown of one segment, and where the next one starts."""
        codec, height = rendition
        played = await play(stub, token, offset_ns, video_codec=codec, max_height=height, segment_count=1)
        pictures = decode_pictures(played.header.video_init + played.track(res.TRACK_VIDEO))
        assert played.end is not None
        following = played.end.next_offset.ToNanoseconds() if played.end.HasField("next_offset") else None
        return pictures.numbers[played.header.trim_frame_count :], following

    async def watched(offset_ns: int, first: tuple[Any, int], then: tuple[Any, int]) -> list[int | None]:
        shown, following = await frames(offset_ns, first)
        if following is not None and following < DURATION_NS:
            shown += (await frames(following, then))[0]
        return shown

    @given(st.integers(0, DURATION_NS - 1), st.sampled_from(RENDITIONS), st.sampled_from(RENDITIONS))
    @settings(max_examples=25, deadline=None)
    def holds(offset_ns: int, first: tuple[Any, int], then: tuple[Any, int]) -> None:
        shown = asyncio.run_coroutine_threadsafe(watched(offset_ns, first, then), loop).result(60)
        wanted = FILM.frame_at(offset_ns)
        assert shown == list(range(wanted, wanted + len(shown)))
        assert len(shown) >= 1

    await asyncio.to_thread(holds)


async def test_a_switch_within_a_stream_shows_every_frame_once(
    stub: Any, process: Running, film: Film
) -> None:
    publisher = Publisher(process, film)
    title = await publisher.begin()
    await publisher.publish("h264-360", [0, 2])
    await publisher.publish("h264-240")
    await publisher.publish("aac-128-und-0")
    token = (await start(stub, title)).lease.token
    played = await play(stub, token, 2 * NS_PER_SECOND)
    shown: list[int | None] = []
    for header, media in zip(played.headers, played.media_of_headers(), strict=True):
        pictures = decode_pictures(header.video_init + media)
        shown += pictures.numbers[header.trim_frame_count :]
    assert len(played.headers) == 2
    assert shown == list(range(FILM.frame_at(2 * NS_PER_SECOND), FILM.frame_count))


async def test_a_stream_that_broke_off_goes_on_with_the_byte_that_is_lacking(
    stub: Any, process: Running, film: Film
) -> None:
    title = await Publisher(process, film).publish_all()
    token = (await start(stub, title)).lease.token
    whole = await play(stub, token, 2 * NS_PER_SECOND)
    data = b"".join(chunk.data for chunk in whole.media)
    cuts = [0, 1, len(data) - 1, *random.Random(6).sample(range(len(data)), 20)]
    ends, at = [], 0
    for chunk in whole.media:
        at += len(chunk.data)
        ends.append(at)
    for cut in [*cuts, *ends]:
        broken = Broken.after(whole, cut)
        later = await resume(stub, token, broken, offset_ns=2 * NS_PER_SECOND)
        assert later.headers == ([] if broken.position else whole.headers)
        assert broken.data + b"".join(chunk.data for chunk in later.media) == data
        assert later.end == whole.end


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (
            res.StreamPosition(video_rendition_id="none", track=res.TRACK_VIDEO),
            ("NOT_FOUND", "RENDITION_NOT_FOUND"),
        ),
        (
            res.StreamPosition(video_rendition_id="av1-240", track=res.TRACK_VIDEO),
            ("FAILED_PRECONDITION", "RENDITION_NOT_PLAYED"),
        ),
        (
            res.StreamPosition(video_rendition_id="h264-360", segment_number=3, track=res.TRACK_VIDEO),
            ("OUT_OF_RANGE", "SEGMENT_OUT_OF_RANGE"),
        ),
        (
            res.StreamPosition(video_rendition_id="h264-360", track=res.TRACK_AUDIO, offset_bytes=1 << 40),
            ("OUT_OF_RANGE", "BYTES_OUT_OF_RANGE"),
        ),
        (res.StreamPosition(video_rendition_id="h264-360"), ("INVALID_ARGUMENT", "VALIDATION_FAILED")),
    ],
)
async def test_a_position_that_was_never_played_is_refused(
    stub: Any, process: Running, film: Film, position: res.StreamPosition, expected: tuple[str, str]
) -> None:
    title = await Publisher(process, film).publish_all()
    token = (await start(stub, title)).lease.token
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await play(stub, token, resume=position)
    assert (error_of(caught.value).code.name, error_of(caught.value).reason) == expected


async def test_a_lease_lives_through_a_film_of_four_hours(
    stub: Any, process: Running, film: Film, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = LongTitle(segment_count=2400, video_bytes=700, audio_bytes=72)
    title = await long.publish(process, film)
    token = (await start(stub, title)).lease.token
    moved, begun = readers.Reader.moved, clock.now()

    def at_the_pace_of_the_film(reader: readers.Reader, size_bytes: int) -> None:
        clock.advance(3)  # pictures and sound of each six seconds are a message each
        moved(reader, size_bytes)

    monkeypatch.setattr(readers.Reader, "moved", at_the_pace_of_the_film)
    request = pb.PlayRequest(lease_token=token)
    request.offset.FromNanoseconds(0)
    messages = [message async for message in stub.Play(request)]
    assert sum(message.media.track == res.TRACK_AUDIO for message in messages) == 2400
    assert messages[-1].end.reason == res.PlayEnd.REASON_END_OF_TITLE
    assert clock.now() - begun >= timedelta(hours=4)


@pytest.mark.parametrize(("silent", "reason"), [(True, "LEASE_LOST"), (False, "LEASE_ENDED")])
async def test_a_reader_that_takes_nothing_is_dropped_with_the_reason_when_its_lease_is_gone(
    stub: Any,
    process: Running,
    film: Film,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    silent: bool,
    reason: str,
) -> None:
    taken = Taken(monkeypatch)
    title = await LongTitle(segment_count=400, video_bytes=300_000, audio_bytes=1000).publish(process, film)
    token = (await start(stub, title)).lease.token
    others = (await start(stub, title)).lease.token
    call = stub.Play(pb.PlayRequest(lease_token=token))
    await call.read()
    await taken.none_more()
    if silent:
        for _ in range(3):
            clock.advance(20)
            await stub.RenewLease(pb.RenewLeaseRequest(lease_token=others))
    else:
        await stub.EndPlayback(pb.EndPlaybackRequest(lease_token=token))
        clock.advance(readers.QUIET)
    before = dropped()
    await process.apps[-1].leave.__self__.drop_lost()  # type: ignore[attr-defined]
    assert dropped() == before + 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_of(call)
    assert error_of(caught.value).reason == reason
    assert (await play(stub, others, 0, segment_count=1)).header.frame_number == 0


async def test_a_cancelled_stream_reads_nothing_more(stub: Any, process: Running, film: Film) -> None:
    title = await LongTitle(segment_count=400, video_bytes=300_000, audio_bytes=1000).publish(process, film)
    token = (await start(stub, title)).lease.token
    calls = [stub.Play(pb.PlayRequest(lease_token=token)) for _ in range(5)]
    for call in calls:
        await call.read()
        call.cancel()
    await eventually(lambda: active("Play") == 0)


async def test_a_lease_carries_no_more_than_a_few_streams(stub: Any, process: Running, film: Film) -> None:
    title = await LongTitle(segment_count=400, video_bytes=300_000, audio_bytes=1000).publish(process, film)
    token = (await start(stub, title)).lease.token
    calls = [stub.Play(pb.PlayRequest(lease_token=token)) for _ in range(readers.MAX_PER_LEASE)]
    for call in calls:
        await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await play(stub, token, 0)
    assert error_of(caught.value).reason == "TOO_MANY_READS"
    for call in calls:
        call.cancel()
    await eventually(lambda: active("Play") == 0)
    assert (await play(stub, token, 0, segment_count=1)).header.frame_number == 0


async def test_a_node_that_goes_down_sends_its_streams_on_between_two_messages(
    stub: Any, process: Running, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Taken(monkeypatch)
    title = await LongTitle(segment_count=60, video_bytes=300_000, audio_bytes=1000).publish(process, film)
    token = (await start(stub, title)).lease.token
    call = stub.Play(pb.PlayRequest(lease_token=token))
    header = (await call.read()).header
    await taken.none_more()
    down = asyncio.create_task(process.server.drain(wait_s=0, grace_s=20, leave=[process.apps[-1].leave]))
    received = await all_of(call)
    await down
    assert header.frame_number == 0
    assert received[-1].end.reason == res.PlayEnd.REASON_MOVED
    assert max(message.media.segment_number for message in received) < 59


def active(method: str) -> float:
    labels = {"rpc_service": "kino.playback.v1.PlaybackService", "rpc_method": method}
    return metrics.REGISTRY.get_sample_value("rpc_server_active_calls", labels) or 0


def dropped() -> float:
    return metrics.REGISTRY.get_sample_value("kino_playback_dropped_readers_total") or 0


async def all_of(call: Any) -> list[Any]:
    received = []
    while (message := await call.read()) is not grpc.aio.EOF:
        received.append(message)
    return received


class Taken:
    """Counts the messages that readers take, to tell when one takes no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        moved = readers.Reader.moved

        def counted(reader: readers.Reader, size_bytes: int) -> None:
            self.count += 1
            moved(reader, size_bytes)

        monkeypatch.setattr(readers.Reader, "moved", counted)

    async def none_more(self) -> None:
        seen, still = -1, 0
        while still < 10:
            still = still + 1 if self.count == seen else 0
            seen = self.count
            await asyncio.sleep(0.02)


async def eventually(holds: Any) -> None:
    for _ in range(400):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")
