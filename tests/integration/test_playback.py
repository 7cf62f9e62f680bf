from __future__ import annotations

import asyncio
import hashlib
import shutil
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from kino.history.v1 import history_pb2
from kino.history.v1.history_pb2_grpc import HistoryServiceStub
from kino.media.v1.media_pb2 import VIDEO_CODEC_AV1, VIDEO_CODEC_H264
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1 import resources_pb2 as res
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.media.time import NS_PER_SECOND
from services.playback.bootstrap import build as build_playback
from services.runtime.app import Running
from services.runtime.clock import ManualClock
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving, settings_in, user_token
from tests.support.decoding import decode_beeps, decode_pictures
from tests.support.published import PUBLISHER, Film, Publisher
from tests.support.streams import play
from tests.support.watching import CUTS, FILM, OWNERS_PROFILE, SPEC, VIEWER, Plans, accounts, start


@pytest.fixture
def plans() -> Plans:
    return Plans(limits={VIEWER: 2})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def process(tmp_path: Path, clock: ManualClock, plans: Plans) -> AsyncIterator[Running]:
    async with serving(
        tmp_path,
        clock=clock,
        catalog=build_catalog,
        history=build_history,
        billing=plans.build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


@pytest.fixture
def publisher(process: Running, film: Film) -> Publisher:
    return Publisher(process, film)


@pytest.fixture
async def stub(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process, user_token(process, VIEWER, "viewer")) as channel:
        yield PlaybackServiceStub(channel)


@pytest.fixture
async def owner(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        yield PlaybackServiceStub(channel)


async def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_of(caught.value)
    return error.code.name, error.reason


async def drain(stream: Any) -> list[Any]:
    return [message async for message in stream]


OFFSETS_NS = [
    0,
    1,
    33_366_667,
    2_500_000_000,
    5_338_666_666,
    FILM.ns(161) - 1,
    FILM.ns(161),
    7_400_000_000,
    -(-FILM.duration_ticks * NS_PER_SECOND // FILM.timescale) - 1,
]


@pytest.mark.parametrize("codec", [VIDEO_CODEC_H264, VIDEO_CODEC_AV1])
async def test_play_leads_to_exactly_the_frame_of_an_offset(
    stub: Any, publisher: Publisher, codec: Any
) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    shown, expected = [], []
    for offset_ns in OFFSETS_NS:
        played = await play(stub, token, offset_ns, video_codec=codec, max_height=240, segment_count=1)
        header, wanted = played.header, FILM.frame_at(offset_ns)
        pictures = decode_pictures(header.video_init + played.track(res.TRACK_VIDEO))
        trim, first = header.trim_frame_count, FILM.frame_at(header.media_start.ToNanoseconds())
        shown.append((pictures.numbers[: trim + 1], pictures.pts[trim], header.frame_number))
        expected.append((list(range(first, wanted + 1)), FILM.pts(wanted), wanted))
        assert header.offset.ToNanoseconds() == FILM.ns(wanted)
        assert header.trim.ToNanoseconds() == FILM.ns(wanted) - header.media_start.ToNanoseconds()
    assert shown == expected


async def test_the_pipe_plays_to_the_end_with_every_frame_once_and_sound_on_time(
    stub: Any, publisher: Publisher
) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    played = await play(stub, token, 6_000_000_000)
    header = played.header
    stream = played.stream()
    first = header.frame_number - header.trim_frame_count
    pictures = decode_pictures(stream)
    assert pictures.numbers == list(range(first, FILM.frame_count))
    assert played.end == res.PlayEnd(reason=res.PlayEnd.REASON_END_OF_TITLE)
    flashes = [FILM.ns(frame) / NS_PER_SECOND for frame in SPEC.second_frames if frame >= first]
    beeps = [at for at in decode_beeps(stream) if at >= flashes[0] - 0.02]
    assert beeps == pytest.approx(flashes, abs=0.01)


async def test_media_comes_in_order_and_only_the_first_segment_is_cut(
    stub: Any, publisher: Publisher
) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    played = await play(stub, token, 8_000_000_000)
    runs: list[tuple[int, int]] = []
    position: dict[tuple[int, int], int] = {}
    for chunk in played.media:
        key = (chunk.segment_number, chunk.track)
        if key not in position:
            runs.append(key)
            position[key] = chunk.offset_bytes
        assert chunk.offset_bytes == position[key]
        position[key] += len(chunk.data)
    assert runs == [(1, res.TRACK_VIDEO), (1, res.TRACK_AUDIO), (2, res.TRACK_VIDEO), (2, res.TRACK_AUDIO)]
    lasts = [(chunk.segment_number, chunk.track) for chunk in played.media if chunk.last]
    assert lasts == runs


async def test_sound_goes_with_the_codec_of_the_pictures(stub: Any, publisher: Publisher) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    chosen = {}
    for codec in (VIDEO_CODEC_H264, VIDEO_CODEC_AV1):
        played = await play(stub, token, 0, video_codec=codec, segment_count=1)
        chosen[played.header.video.rendition_id] = played.header.audio.rendition_id
    asked = await play(stub, token, 0, audio_rendition_id="opus-128-und-0", segment_count=1)
    chosen["asked"] = asked.header.audio.rendition_id
    assert chosen == {
        "h264-360": "aac-128-und-0",
        "av1-240": "opus-128-und-0",
        "asked": "opus-128-und-0",
    }


async def test_without_an_offset_it_resumes_at_the_frame_where_the_profile_stopped(
    stub: Any, publisher: Publisher, process: Running, clock: ManualClock
) -> None:
    title = await publisher.publish_all()
    first = await start(stub, title)
    clock.advance(10)
    async with channel_of(process) as channel:
        request = history_pb2.RecordProgressRequest(lease_token=first.lease.token, sequence=1)
        request.position.FromNanoseconds(FILM.ns(200))
        await HistoryServiceStub(channel).RecordProgress(request)
    again = await start(stub, title, device="phone")
    assert again.resume_offset.ToNanoseconds() == FILM.ns(200)
    played = await play(stub, again.lease.token, segment_count=1)
    assert played.header.frame_number == 200
    pictures = decode_pictures(played.header.video_init + played.track(res.TRACK_VIDEO))
    assert pictures.numbers[played.header.trim_frame_count] == 200


async def test_playback_starts_at_zero_when_history_is_down(
    tmp_path: Path, film: Film, clock: ManualClock, plans: Plans
) -> None:
    async with serving(
        tmp_path,
        clock=clock,
        catalog=build_catalog,
        billing=plans.build,
        identity=accounts,
        playback=build_playback,
    ) as process:
        title = await Publisher(process, film).publish_all()
        async with channel_of(process, user_token(process, VIEWER, "viewer")) as channel:
            stub = PlaybackServiceStub(channel)
            started = await start(stub, title)
            played = await play(stub, started.lease.token, segment_count=1)
    assert (started.resume_offset, played.header.frame_number) == (Duration(), 0)


async def test_the_choice_names_what_can_be_played(stub: Any, publisher: Publisher) -> None:
    title = await publisher.publish_all()
    choice = (await start(stub, title)).choice
    assert [r.rendition_id for r in choice.renditions] == [
        "h264-360",
        "h264-240",
        "av1-240",
        "aac-128-und-0",
        "opus-128-und-0",
    ]
    assert (choice.complete, choice.ready_segment_count) == (True, 3)
    assert choice.duration.ToNanoseconds() == -(-FILM.duration_ticks * NS_PER_SECOND // FILM.timescale)
    assert list(choice.timeline.segment_start_ticks) == [FILM.pts(cut) for cut in CUTS[:-1]]


async def test_an_early_title_plays_what_is_ready_and_says_where_to_go_on(
    owner: Any, publisher: Publisher, clock: ManualClock
) -> None:
    title = await publisher.begin()
    await publisher.publish("h264-240", [0, 1])
    await publisher.publish("aac-128-und-0", [0])
    started = await start(owner, title, profile=OWNERS_PROFILE)
    assert (started.choice.ready_segment_count, started.choice.complete) == (1, False)
    played = await play(owner, started.lease.token, 0)
    assert played.header.video.rendition_id == "h264-240"
    assert played.end is not None
    assert played.end.reason == res.PlayEnd.REASON_END_OF_READY_PART
    assert played.end.next_offset.ToNanoseconds() == FILM.ns(161)
    beyond = await play(owner, started.lease.token, 7_400_000_000)
    assert (beyond.headers, beyond.media) == ([], [])
    await publisher.publish("aac-128-und-0", [1])
    clock.advance(2)
    later = await play(owner, started.lease.token, played.end.next_offset.ToNanoseconds())
    assert later.header.frame_number == 161


async def test_pictures_change_to_the_rendition_that_goes_on_with_a_new_header(
    stub: Any, publisher: Publisher
) -> None:
    title = await publisher.begin()
    await publisher.publish("h264-360", [0])
    await publisher.publish("h264-240")
    await publisher.publish("aac-128-und-0")
    token = (await start(stub, title)).lease.token
    played = await play(stub, token, 0)
    assert [
        (h.video.rendition_id, h.segment_number, h.frame_number, h.trim_frame_count) for h in played.headers
    ] == [
        ("h264-360", 0, 0, 0),
        ("h264-240", 1, 161, 0),
    ]


async def test_a_window_ends_where_the_next_one_starts(stub: Any, publisher: Publisher) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    one = await play(stub, token, 0, segment_count=1)
    assert one.end is not None
    two = await play(stub, token, one.end.next_offset.ToNanoseconds(), segment_count=9)
    ends = [(one.end.reason, one.end.next_offset.ToNanoseconds()), (two.header.frame_number, two.end)]
    assert ends == [
        (res.PlayEnd.REASON_END_OF_WINDOW, FILM.ns(161)),
        (161, res.PlayEnd(reason=res.PlayEnd.REASON_END_OF_TITLE)),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"offset_ns": -(-FILM.duration_ticks * NS_PER_SECOND // FILM.timescale)},
            ("OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE"),
        ),
        ({"offset_ns": 10**13}, ("OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE")),
        ({"offset_ns": -1}, ("INVALID_ARGUMENT", "VALIDATION_FAILED")),
        ({"audio_rendition_id": "h264-240"}, ("NOT_FOUND", "RENDITION_NOT_FOUND")),
        ({"lease_token": "forged"}, ("UNAUTHENTICATED", "TOKEN_INVALID")),
    ],
)
async def test_bad_requests_to_play_are_refused_with_their_reason(
    stub: Any, publisher: Publisher, fields: dict[str, Any], expected: tuple[str, str]
) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    assert await refusal(play(stub, fields.pop("lease_token", token), **fields)) == expected


async def test_read_segments_gives_the_stored_bytes(stub: Any, publisher: Publisher, film: Film) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    request = pb.ReadSegmentsRequest(
        lease_token=token, rendition_id="h264-360", first_segment=1, segment_count=9
    )
    chunks = [message.media for message in await drain(stub.ReadSegments(request))]
    stored = film.segments("h264-360")
    got = {n: b"".join(c.data for c in chunks if c.segment_number == n) for n in (1, 2)}
    assert got == {n: stored[n].data for n in (1, 2)}
    request.first_offset_bytes = 1000
    resumed = [message.media for message in await drain(stub.ReadSegments(request))]
    assert b"".join(c.data for c in resumed) == stored[1].data[1000:] + stored[2].data
    request.first_segment, request.first_offset_bytes = -1, 0
    assert (
        b"".join(m.media.data for m in await drain(stub.ReadSegments(request))) == film.one("h264-360").init
    )


async def test_read_segments_tells_not_ready_from_not_there(owner: Any, publisher: Publisher) -> None:
    title = await publisher.begin()
    await publisher.publish("h264-240", [0])
    await publisher.publish("aac-128-und-0", [0])
    token = (await start(owner, title, profile=OWNERS_PROFILE)).lease.token

    async def read(rendition_id: str, number: int) -> tuple[str, str]:
        request = pb.ReadSegmentsRequest(lease_token=token, rendition_id=rendition_id, first_segment=number)
        return await refusal(drain(owner.ReadSegments(request)))

    assert [await read("h264-240", 1), await read("h264-240", 3), await read("vp9-240", 0)] == [
        ("FAILED_PRECONDITION", "SEGMENT_NOT_READY"),
        ("OUT_OF_RANGE", "SEGMENT_OUT_OF_RANGE"),
        ("NOT_FOUND", "RENDITION_NOT_FOUND"),
    ]


async def test_a_damaged_segment_is_never_sent(
    stub: Any, publisher: Publisher, process: Running, film: Film
) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    key = f"media/{title.removeprefix('titles/')}/one/h264-360/000000-1.m4s"
    async with process.context.objects.file(key) as stored:  # the store's own
        pass
    stored.chmod(0o600)
    stored.write_bytes(film.segments("h264-360")[0].data[:-1] + b"!")
    request = pb.ReadSegmentsRequest(lease_token=token, rendition_id="h264-360")
    assert await refusal(drain(stub.ReadSegments(request))) == ("DATA_LOSS", "SEGMENT_CORRUPT")
    stored.write_bytes(film.segments("h264-360")[0].data)
    got = b"".join(m.media.data for m in await drain(stub.ReadSegments(request)))
    assert hashlib.sha256(got).digest() == film.segments("h264-360")[0].sha256


async def test_the_limit_holds_when_fifty_start_at_once(
    stub: Any, publisher: Publisher, plans: Plans
) -> None:
    title = await publisher.publish_all()
    plans.limits[VIEWER] = 7

    async def outcome() -> str:
        try:
            return (await start(stub, title)).lease.name
        except grpc.aio.AioRpcError as error:
            return error_of(error).reason

    outcomes = await asyncio.gather(*(outcome() for _ in range(50)))
    assert outcomes.count("CONCURRENT_STREAM_LIMIT") == 43
    listed = await stub.ListLeases(pb.ListLeasesRequest(parent=VIEWER))
    assert sorted(lease.name for lease in listed.leases) == sorted(
        o for o in outcomes if o.startswith("leases/")
    )
    assert {lease.token for lease in listed.leases} == {""}


async def test_a_repeated_start_is_the_same_playback(stub: Any, publisher: Publisher) -> None:
    title = await publisher.publish_all()
    request_id = str(uuid.uuid4())
    first, second = [await start(stub, title, request_id=request_id) for _ in range(2)]
    assert (first.lease.name, first.lease.start_time) == (second.lease.name, second.lease.start_time)
    assert await refusal(start(stub, title, request_id=request_id, device="other")) == (
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
    )
    assert len((await stub.ListLeases(pb.ListLeasesRequest(parent=VIEWER))).leases) == 1


async def test_ending_frees_the_stream_at_once_and_stops_what_runs(
    stub: Any, publisher: Publisher, plans: Plans
) -> None:
    title = await publisher.publish_all()
    plans.limits[VIEWER] = 1
    first = (await start(stub, title)).lease
    assert await refusal(start(stub, title)) == ("RESOURCE_EXHAUSTED", "CONCURRENT_STREAM_LIMIT")
    for _ in range(2):
        await stub.EndPlayback(pb.EndPlaybackRequest(lease_token=first.token))
    await start(stub, title)
    assert await refusal(play(stub, first.token, 0)) == ("FAILED_PRECONDITION", "LEASE_ENDED")


async def test_a_silent_playback_loses_its_lease_and_a_renewed_one_keeps_it(
    stub: Any, publisher: Publisher, clock: ManualClock
) -> None:
    title = await publisher.publish_all()
    silent, renewed = (await start(stub, title)).lease, (await start(stub, title)).lease
    clock.advance(50)
    lease = (await stub.RenewLease(pb.RenewLeaseRequest(lease_token=renewed.token))).lease
    assert lease.expire_time.ToDatetime() - renewed.start_time.ToDatetime() == timedelta(seconds=110)
    assert lease.token == renewed.token
    clock.advance(15)
    assert await refusal(play(stub, silent.token, 0)) == ("FAILED_PRECONDITION", "LEASE_LOST")
    assert (await play(stub, renewed.token, 0, segment_count=1)).header.frame_number == 0
    listed = await stub.ListLeases(pb.ListLeasesRequest(parent=VIEWER))
    assert [lease.name for lease in listed.leases] == [renewed.name]


async def test_who_may_not_watch_is_told_why(
    stub: Any, publisher: Publisher, process: Running, plans: Plans
) -> None:
    title = await publisher.publish_all()
    hidden = Publisher(process, publisher._film)
    unplayable = await hidden.begin()
    plans.limits["users/bob"] = 0
    async with channel_of(process, user_token(process, "users/bob", "viewer")) as channel:
        bob = PlaybackServiceStub(channel)
        reasons = [
            await refusal(start(bob, title, profile="users/bob/profiles/main")),
            await refusal(start(bob, title)),
            await refusal(bob.ListLeases(pb.ListLeasesRequest(parent=VIEWER))),
            await refusal(start(stub, "titles/nothing")),
            await refusal(start(stub, unplayable)),
            await refusal(start(stub, unplayable, profile=f"{VIEWER}/profiles/nobody")),
        ]
    assert reasons == [
        ("PERMISSION_DENIED", "NOT_ENTITLED"),
        ("PERMISSION_DENIED", "NOT_OWNER"),
        ("PERMISSION_DENIED", "NOT_OWNER"),
        ("NOT_FOUND", "TITLE_NOT_FOUND"),
        ("NOT_FOUND", "TITLE_NOT_FOUND"),
        ("NOT_FOUND", "PROFILE_NOT_FOUND"),
    ]


async def test_publishers_need_no_plan(owner: Any, publisher: Publisher) -> None:
    title = await publisher.publish_all()
    assert (await start(owner, title, profile=OWNERS_PROFILE)).lease.profile == OWNERS_PROFILE


async def test_a_deleted_title_stops_within_a_minute(
    stub: Any, publisher: Publisher, clock: ManualClock
) -> None:
    title = await publisher.publish_all()
    token = (await start(stub, title)).lease.token
    await publisher.delete()
    assert await refusal(start(stub, title)) == ("NOT_FOUND", "TITLE_NOT_FOUND")
    clock.advance(40)
    await stub.RenewLease(pb.RenewLeaseRequest(lease_token=token))
    clock.advance(20)
    assert await refusal(play(stub, token, 0)) == ("NOT_FOUND", "TITLE_NOT_FOUND")


async def test_an_edge_serves_on_from_its_disk_after_a_restart_without_the_origin(
    tmp_path: Path, film: Film, clock: ManualClock, plans: Plans
) -> None:
    settings = settings_in(tmp_path, edge_disk_bytes=1 << 30)
    services = {"catalog": build_catalog, "billing": plans.build, "playback": build_playback}
    async with serving(tmp_path, settings=settings, clock=clock, identity=accounts, **services) as process:
        title = await Publisher(process, film).publish_all()
        async with channel_of(process, user_token(process, VIEWER, "viewer")) as channel:
            stub = PlaybackServiceStub(channel)
            first = await play(stub, (await start(stub, title)).lease.token, 0)
    shutil.rmtree(settings.objects_folder)
    async with (
        serving(tmp_path, settings=settings, clock=clock, identity=accounts, **services) as process,
        channel_of(process, user_token(process, VIEWER, "viewer")) as channel,
    ):
        stub = PlaybackServiceStub(channel)
        again = await play(stub, (await start(stub, title)).lease.token, 0)
    assert again.stream() == first.stream()
