from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.catalog.artwork import Artwork, Frame
from services.catalog.media_usecases import MediaView
from services.catalog.model import Viewer
from services.catalog.store_sql import SqlStore
from services.runtime.objects_local import LocalObjects
from services.runtime.sql import Database
from tests.contract.catalog.test_replacement import House

ANN = Viewer(subject="users/ann")
S = 10**9


@dataclass
class Camera:
    """Makes a file that says what it was made of; the ticks of these films are seconds."""

    taken: list[str] = field(default_factory=list)

    async def of_picture(self, data: bytes) -> dict[str, bytes]:
        return {"large.jpg": data}

    async def of_frame(self, frame: Frame) -> dict[str, bytes]:
        self.taken.append(f"{frame.segment_key} {frame.ticks}")
        return {"large.jpg": self.taken[-1].encode()}

    def frame_ticks(self, view: MediaView, offset_ns: int) -> int:
        return offset_ns // S


@dataclass(kw_only=True)
class Studio:
    house: House
    artwork: Artwork
    camera: Camera
    objects: LocalObjects

    async def frame(self, offset_ns: int) -> str:
        title_id = self.house.title_id
        return await self.artwork.set_frame(ANN, f"titles/{title_id}", title_id, offset_ns)

    async def shown(self) -> str:
        """What the title's picture was made of."""
        title = await self.house.catalog.get(ANN, self.house.title_id)
        return (await self.objects.get(f"artwork/{title.title_id}/{title.artwork}/large.jpg")).decode()


@pytest.fixture
async def studio(sql_database: Database, tmp_path: Path) -> AsyncIterator[Studio]:
    house, camera, objects = House(sql_database), Camera(), LocalObjects(tmp_path / "objects")
    artwork = Artwork(SqlStore(sql_database), objects, camera, house.clock)
    await house.begin("j1")
    await house.publish("j1", 0, 1, 2, 3)
    yield Studio(house=house, artwork=artwork, camera=camera, objects=objects)
    await objects.close()


async def test_a_frame_is_taken_anew_of_the_newer_film_once_that_moment_is_encoded(studio: Studio) -> None:
    await studio.frame(12 * S)
    old = await studio.shown()
    await studio.house.begin("j2")
    await studio.artwork.renew()
    assert await studio.shown() == old
    await studio.house.publish("j2", 0, 1)
    await studio.artwork.renew()
    assert await studio.shown() == old
    await studio.house.publish("j2", 2)
    await studio.artwork.renew()
    key = f"media/{studio.house.title_id}/j2/h264-480/2.m4s"
    assert await studio.shown() == f"{key} 12"
    await studio.artwork.renew()
    assert len(studio.camera.taken) == 2
    sweep = await studio.house.catalog.next_sweep()
    assert sweep is not None
    assert sweep.job.startswith("artwork/")


async def test_another_picture_stays_also_one_that_is_chosen_meanwhile(studio: Studio) -> None:
    name = f"titles/{studio.house.title_id}"
    await studio.frame(3 * S)
    await studio.artwork.set_picture(ANN, name, b"poster")
    await studio.house.begin("j2")
    await studio.house.publish("j2", 0, 1)
    await studio.artwork.renew()
    assert await studio.shown() == "poster"

    await studio.frame(3 * S)
    await studio.house.begin("j3")
    await studio.house.publish("j3", 0, 1)
    took = studio.camera.of_frame

    async def slowly(frame: Frame) -> dict[str, bytes]:
        await studio.artwork.set_picture(ANN, name, b"newer poster")
        return await took(frame)

    studio.camera.of_frame = slowly  # type: ignore[method-assign]
    await studio.artwork.renew()
    assert await studio.shown() == "newer poster"
    left = [entry.key async for entry in studio.objects.list(f"artwork/{studio.house.title_id}/")]
    assert len(left) == 4  # two frames and a poster are still to be collected, none was left behind


async def test_a_moment_beyond_the_newer_films_end_becomes_its_last(studio: Studio) -> None:
    await studio.frame(19 * S)
    await studio.house.begin("j2")
    await studio.house.publish("j2", 0, 1, 2, 3, seconds=17)
    await studio.artwork.renew()
    assert await studio.shown() == f"media/{studio.house.title_id}/j2/h264-480/3.m4s 16"
