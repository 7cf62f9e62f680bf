"""Text tracks, chapters and the storyboard on their way to a player."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration

from kino.catalog.v1 import catalog_pb2
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.media.v1 import media_pb2
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.playback.bootstrap import build as build_playback
from services.runtime.app import Running
from services.runtime.testing import channel_of, service_token, serving, user_token
from tests.integration.test_playback import refusal
from tests.support.published import Film, Publisher
from tests.support.watching import VIEWER, Plans, accounts, start

FILES = {"vtt-eng-0": b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "sheet": b"\xff\xd8jpeg"}


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(
        tmp_path,
        catalog=build_catalog,
        history=build_history,
        billing=Plans(limits={VIEWER: 1}).build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


async def give_extras(process: Running, title: str) -> media_pb2.Extras:
    stored: dict[str, dict[str, Any]] = {}
    for name, data in FILES.items():
        key = f"media/{title.removeprefix('titles/')}/extras/{name}"
        await process.context.objects.put(key, data)
        stored[name] = {"object_key": key, "size_bytes": len(data), "sha256": hashlib.sha256(data).digest()}
    sheet = media_pb2.StoryboardSheet(**stored["sheet"])
    extras = media_pb2.Extras(
        text_tracks=[media_pb2.TextTrack(track_id="vtt-eng-0", language="en", **stored["vtt-eng-0"])],
        chapters=[
            media_pb2.Chapter(start_offset=Duration(), end_offset=Duration(seconds=4), name="Beginning")
        ],
        storyboard=media_pb2.Storyboard(
            sheets=[sheet],
            tile_width=160,
            tile_height=90,
            columns=10,
            rows=10,
            tile_count=12,
            interval=Duration(seconds=1),
        ),
    )
    async with channel_of(process, service_token(process, "scheduler")) as channel:
        catalog = CatalogServiceStub(channel)
        job = (await catalog.GetMedia(catalog_pb2.GetMediaRequest(title=title))).media.job
        await catalog.PublishExtras(catalog_pb2.PublishExtrasRequest(title=title, job=job, extras=extras))
    return extras


async def test_a_player_is_told_the_extras_and_gets_their_files(process: Running, film: Film) -> None:
    title = await Publisher(process, film).publish_all()
    extras = await give_extras(process, title)
    async with channel_of(process, user_token(process, VIEWER, "viewer")) as channel:
        stub: Any = PlaybackServiceStub(channel)
        started = await start(stub, title)
        assert started.choice.extras == extras

        async def get(file: str) -> HttpBody:
            call = stub.GetExtra(pb.GetExtraRequest(lease_token=started.lease.token, file=file))
            bodies: list[HttpBody] = [body async for body in call]
            assert dict(await call.initial_metadata())["accept-ranges"] == "bytes"
            return bodies[0]

        words, sheet = await get("vtt-eng-0.vtt"), await get("storyboard-0.jpg")
        assert (words.content_type, words.data) == ("text/vtt; charset=utf-8", FILES["vtt-eng-0"])
        assert (sheet.content_type, sheet.data) == ("image/jpeg", FILES["sheet"])
        for file in ("vtt-fra-1.vtt", "storyboard-1.jpg"):
            assert await refusal(get(file)) == ("NOT_FOUND", "EXTRA_NOT_FOUND")
