"""What is watched while a newer source takes the place of the old one."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1 import resources_pb2 as res
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.playback.bootstrap import build as build_playback
from services.runtime.app import Running
from services.runtime.clock import ManualClock
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving, user_token
from tests.support.published import PUBLISHER, Film, Publisher
from tests.support.streams import Played, play
from tests.support.watching import OWNERS_PROFILE, Plans, accounts, start


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
        billing=Plans(limits={}).build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


@pytest.fixture
async def stub(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        yield PlaybackServiceStub(channel)


def newer(process: Running, film: Film, title: str, job: str = "jobs/two") -> Publisher:
    """The same film in its lowest rendition only, to be told from the old one."""
    few = dataclasses.replace(
        film,
        pictures={"h264-240": film.pictures["h264-240"]},
        sounds={"aac-128-und-0": film.sounds["aac-128-und-0"]},
    )
    return Publisher(process, few, replaces=title, job=job)


async def manifest(stub: Any, token: str) -> bytes:
    request = pb.GetManifestRequest(lease_token=token, file="master.m3u8")
    return b"".join([message.data async for message in stub.GetManifest(request)])


async def a_minute_later(clock: ManualClock, stub: Any, token: str) -> None:
    """When complete titles are asked for again; the lease is kept."""
    for _ in range(2):
        clock.advance(31)
        await stub.RenewLease(pb.RenewLeaseRequest(lease_token=token))


@asynccontextmanager
async def refused(reason: str) -> AsyncIterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert error_of(caught.value).reason == reason


async def test_who_watches_when_a_title_is_replaced_sees_the_old_film_to_its_end_and_others_the_new_one(
    process: Running, stub: Any, film: Film, clock: ManualClock
) -> None:
    title = await Publisher(process, film).publish_all()
    token = (await start(stub, title, profile=OWNERS_PROFILE)).lease.token
    undisturbed, listed = await play(stub, token, 0), await manifest(stub, token)

    played = Played()
    running = aiter(stub.Play(pb.PlayRequest(lease_token=token, offset=Duration())))
    played.headers.append((await anext(running)).header)
    await newer(process, film, title).publish_all()
    await a_minute_later(clock, stub, token)
    async for message in running:
        if message.HasField("media"):
            played.media.append(message.media)
        else:
            played.end = message.end
    assert (played.stream(), played.end) == (undisturbed.stream(), undisturbed.end)
    # A seek and an HTTP player's next request, too.
    assert (await play(stub, token, 0)).stream() == undisturbed.stream()
    assert await manifest(stub, token) == listed

    started = await start(stub, title, profile=OWNERS_PROFILE)
    ids = [rendition.rendition_id for rendition in started.choice.renditions]
    assert ids == ["h264-240", "aac-128-und-0"]
    fresh = await play(stub, started.lease.token, 0)
    assert fresh.header.video.rendition_id == "h264-240" != undisturbed.header.video.rendition_id
    assert await manifest(stub, started.lease.token) != listed


async def test_an_unfinished_film_that_is_replaced_ends_with_the_word_to_start_again(
    process: Running, stub: Any, film: Film, clock: ManualClock
) -> None:
    old = Publisher(process, film)
    title = await old.begin()
    for rendition_id in ("h264-240", "aac-128-und-0"):
        await old.publish(rendition_id, [0, 1])
    token = (await start(stub, title, profile=OWNERS_PROFILE)).lease.token
    before = await play(stub, token, 0)
    assert before.end is not None
    assert before.end.reason == res.PlayEnd.REASON_END_OF_READY_PART
    await newer(process, film, title).publish_all()
    clock.advance(2)
    after = await play(stub, token, 0)
    assert after.stream() == before.stream()
    assert after.end is not None
    assert (after.end.reason, after.end.next_offset) == (res.PlayEnd.REASON_REPLACED, before.end.next_offset)
    async with refused("TITLE_REPLACED"):
        await manifest(stub, token)
    async with refused("TITLE_REPLACED"):
        request = pb.ReadSegmentsRequest(lease_token=token, rendition_id="h264-240", first_segment=2)
        await stub.ReadSegments(request).read()


async def test_a_film_that_is_replaced_twice_still_plays_to_each_who_began_with_it(
    process: Running, stub: Any, film: Film, clock: ManualClock
) -> None:
    title = await Publisher(process, film).publish_all()
    token = (await start(stub, title, profile=OWNERS_PROFILE)).lease.token
    before = await play(stub, token, 0)
    for job in ("jobs/two", "jobs/three"):
        await newer(process, film, title, job).publish_all()
        await a_minute_later(clock, stub, token)
    assert (await play(stub, token, 0)).stream() == before.stream()
