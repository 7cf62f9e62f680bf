"""Pictures of titles and series: the real catalog and preprocessor, hostile files included."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from kino.catalog.v1 import catalog_pb2 as pb
from kino.catalog.v1 import resources_pb2 as res
from kino.catalog.v1 import series_pb2
from services.catalog.bootstrap import build as build_catalog
from services.media.testfilm import read_frame_number
from services.preprocessor.bootstrap import build as build_preprocessor
from services.runtime.app import Running
from services.runtime.testing import channel_of, serving, user_token
from tests.integration.test_catalog_rpc import create, refused
from tests.integration.test_series_rpc import Person, make_season, make_series, placing
from tests.support.published import PUBLISHER, Film, Publisher
from tests.support.watching import FILM


def picture(width: int = 64, height: int = 36, codec: str = "png") -> bytes:
    """A picture that is red on its left and blue on its right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 255, 255
    context: Any = av.CodecContext.create({"jpeg": "mjpeg"}.get(codec, codec), "w")
    context.width, context.height, context.time_base = width, height, Fraction(1, 25)
    context.pix_fmt = {"png": "rgb24", "jpeg": "yuvj420p", "libwebp": "yuv420p"}[codec]
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=context.pix_fmt)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def pixels_of(data: bytes, format_: str = "rgb24") -> Any:
    with av.open(io.BytesIO(data), mode="r", format="jpeg_pipe") as container:
        return next(container.decode(video=0)).to_ndarray(format=format_)


@dataclass(kw_only=True)
class Cinema:
    process: Running
    owner: Person
    viewer: Person

    async def set_picture(self, name: str, data: bytes) -> res.Artwork:
        answer = await self.owner.titles.SetArtwork(pb.SetArtworkRequest(name=name, picture=data))
        artwork: res.Artwork = answer.artwork
        return artwork

    async def get(self, path: str) -> bytes:
        """As a browser does: without a token."""
        async with channel_of(self.process) as channel:
            request = pb.GetArtworkRequest(name=path.removeprefix("/v1/"))
            body = await Person(channel).titles.GetArtwork(request)
        assert body.content_type == "image/jpeg"
        return bytes(body.data)


@pytest.fixture
async def cinema(tmp_path: Path) -> AsyncIterator[Cinema]:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(
            serving(tmp_path, catalog=build_catalog, preprocessor=build_preprocessor)
        )
        people = [
            Person(await stack.enter_async_context(channel_of(process, user_token(process, user, role))))
            for user, role in ((PUBLISHER, "publisher"), ("users/bob", "viewer"))
        ]
        yield Cinema(process=process, owner=people[0], viewer=people[1])


async def keys(cinema: Cinema) -> set[str]:
    return {entry.key async for entry in cinema.process.context.objects.list("artwork/")}


@pytest.mark.parametrize("codec", ["png", "jpeg", "libwebp"])
async def test_a_picture_is_encoded_anew_in_two_sizes(cinema: Cinema, codec: str) -> None:
    title = await create(cinema.owner.titles)
    artwork = await cinema.set_picture(title.name, picture(2000, 1000, codec))
    large, small = [pixels_of(await cinema.get(p)) for p in (artwork.large_path, artwork.small_path)]
    assert (large.shape, small.shape) == ((640, 1280, 3), (240, 480, 3))
    red, blue = small[120, 100], small[120, 380]
    assert (red[0] > 200, red[2] < 60, blue[2] > 200, blue[0] < 60) == (True,) * 4
    got = (await cinema.owner.titles.GetTitle(pb.GetTitleRequest(name=title.name))).title
    assert got.artwork == artwork


async def test_a_small_picture_is_not_made_larger(cinema: Cinema) -> None:
    title = await create(cinema.owner.titles)
    artwork = await cinema.set_picture(title.name, picture(40, 60))
    assert pixels_of(await cinema.get(artwork.large_path)).shape == (60, 40, 3)


async def test_nothing_but_pixels_goes_on(cinema: Cinema) -> None:
    data = picture(codec="jpeg")
    secret = b"GPS 48.137N 11.575E"
    exif = b"\xff\xe1" + (len(secret) + 8).to_bytes(2) + b"Exif\0\0" + secret
    title = await create(cinema.owner.titles)
    artwork = await cinema.set_picture(title.name, data[:2] + exif + data[2:] + b"<script>")
    got = await cinema.get(artwork.large_path)
    assert secret not in got
    assert b"script" not in got


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n/etc/passwd",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF89a" + bytes(99),
        b"\xff\xd8\xff" + bytes(999),
        b"RIFF\x04\x00\x00\x00AVI ",
        picture()[:60],
        # A header that announces 50,000 × 50,000 pixels.
        picture()[:16] + (50_000).to_bytes(4) * 2 + picture()[24:],
    ],
    ids=["playlist", "svg", "gif", "noise", "other riff", "cut off", "bomb"],
)
async def test_what_is_no_picture_is_refused_and_leaves_nothing(cinema: Cinema, data: bytes) -> None:
    title = await create(cinema.owner.titles)
    assert await refused(cinema.set_picture(title.name, data)) == ("INVALID_ARGUMENT", "PICTURE_UNREADABLE")
    assert await keys(cinema) == set()


async def test_a_frame_of_the_film_is_exactly_the_one_of_the_moment(cinema: Cinema, film: Film) -> None:
    name = await Publisher(cinema.process, film).publish_all()
    for number in (0, 170, FILM.frame_count - 1):
        offset = Duration()
        offset.FromNanoseconds(FILM.ns(number))
        frame = pb.SetArtworkRequest.Frame(title=name, offset=offset)
        answer = await cinema.owner.titles.SetArtwork(pb.SetArtworkRequest(name=name, frame=frame))
        gray = pixels_of(await cinema.get(answer.artwork.large_path), "gray")
        assert read_frame_number(gray) == number


async def test_a_moment_that_is_not_encoded_is_refused(cinema: Cinema) -> None:
    title = await create(cinema.owner.titles)
    request = pb.SetArtworkRequest(
        name=title.name, frame=pb.SetArtworkRequest.Frame(title=title.name, offset=Duration())
    )
    assert await refused(cinema.owner.titles.SetArtwork(request)) == (
        "FAILED_PRECONDITION",
        "FRAME_NOT_READY",
    )


async def until(cinema: Cinema, wanted: set[str]) -> None:
    for _ in range(1000):
        if await keys(cinema) == wanted:
            return
        await asyncio.sleep(0.02)
    assert await keys(cinema) == wanted


async def test_replaced_cleared_and_deleted_pictures_are_collected(cinema: Cinema) -> None:
    title = await create(cinema.owner.titles)
    old = await cinema.set_picture(title.name, picture())
    new = await cinema.set_picture(title.name, picture(50, 50))
    await until(cinema, {path.removeprefix("/v1/") for path in (new.large_path, new.small_path)})
    assert await refused(cinema.get(old.small_path)) == ("NOT_FOUND", "ARTWORK_NOT_FOUND")
    await cinema.owner.titles.ClearArtwork(pb.ClearArtworkRequest(name=title.name))
    await until(cinema, set())
    series = await make_series(cinema.owner)
    for name in (title.name, series.name):
        await cinema.set_picture(name, picture())
    assert len(await keys(cinema)) == 4
    await cinema.owner.titles.DeleteTitle(pb.DeleteTitleRequest(name=title.name))
    await cinema.owner.series.DeleteSeries(series_pb2.DeleteSeriesRequest(name=series.name))
    await until(cinema, set())


async def test_only_the_owner_sets_a_picture_and_a_series_may_take_a_frame(
    cinema: Cinema, film: Film
) -> None:
    name = await Publisher(cinema.process, film).publish_all()
    series = await make_series(cinema.owner)
    season = await make_season(cinema.owner, series, 1)
    await cinema.owner.series.CreateEpisode(placing(season, res.Title(name=name)))
    frame = pb.SetArtworkRequest.Frame(title=name, offset=Duration(seconds=2))
    answer = await cinema.owner.titles.SetArtwork(pb.SetArtworkRequest(name=series.name, frame=frame))
    got = (await cinema.viewer.series.GetSeries(series_pb2.GetSeriesRequest(name=series.name))).series
    assert got.artwork == answer.artwork
    async with channel_of(cinema.process, user_token(cinema.process, "users/eve", "publisher")) as channel:
        stranger = Person(channel).titles
        request = pb.SetArtworkRequest(name=name, picture=picture())
        assert await refused(stranger.SetArtwork(request)) == ("PERMISSION_DENIED", "NOT_OWNER")
