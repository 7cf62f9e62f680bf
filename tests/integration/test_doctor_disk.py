from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cli.disk import Disk, examine_disk
from kino.catalog.v1 import catalog_pb2
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.ingest.v1 import ingest_pb2
from kino.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.ingest.bootstrap import build as build_ingest
from services.media.scratch import TASK, Scratch
from services.runtime.app import Running
from services.runtime.claims import claim
from services.runtime.objects_local import LocalObjects
from services.runtime.settings import Settings
from services.runtime.sql import Database
from services.runtime.testing import channel_of, serving, settings_in, user_token
from tests.engines.postgres import Postgres
from tests.support.published import JOB, PUBLISHER, Film, Publisher
from tests.support.stack import run_kino
from tests.support.uploads import part_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "scratch").mkdir()
    return settings_in(tmp_path / "data", scratch_dir=tmp_path / "scratch")


@pytest.fixture
async def process(tmp_path: Path, settings: Settings) -> AsyncIterator[Running]:
    async with serving(tmp_path, settings=settings, catalog=build_catalog, ingest=build_ingest) as running:
        yield running


def held(disk: Disk, kind: str, state: str) -> dict[str, tuple[int, str]]:
    """Bytes and note by owner."""
    return {
        one.owner: (one.size_bytes, one.note)
        for one in disk.holdings
        if (one.kind, one.state) == (kind, state)
    }


async def test_each_object_has_its_title_and_rendition_or_is_an_orphan(
    process: Running, settings: Settings, film: Film
) -> None:
    publisher, objects = Publisher(process, film), process.context.objects
    title = (await publisher.begin()).removeprefix("titles/")
    job = JOB.removeprefix("jobs/")
    await publisher.publish("h264-240")
    await objects.put(f"media/{title}/{job}/h264-240/000001-7.m4s", b"of an attempt that lost")
    await objects.put(f"sources/{title}/{job}", b"source")
    await objects.put("media/gone/j/h264-240/init.mp4", b"nobody's")
    whole = sum(len(segment.data) for segment in film.segments("h264-240"))

    disk = await examine_disk(settings)

    init_bytes = len(film.one("h264-240").init)
    owner = f"{title}/{job} h264-240 “Test film”"
    assert held(disk, "media", "used") == {owner: (whole + init_bytes, "")}
    [(size_bytes, note)] = held(disk, "media", "unpublished").values()
    assert (size_bytes, "the scheduler removes them" in note) == (23, True)
    assert held(disk, "source", "used") == {f"{title}/{job} “Test film”": (6, "")}
    [(size_bytes, note)] = held(disk, "media", "orphan").values()
    assert (size_bytes, "delete it by hand" in note) == (8, True)
    assert disk.problems == ()


async def test_what_is_left_of_a_deleted_title_is_told_with_when_it_goes(
    process: Running, settings: Settings, film: Film
) -> None:
    title = await Publisher(process, film).begin()
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        await CatalogServiceStub(channel).DeleteTitle(catalog_pb2.DeleteTitleRequest(name=title))
    await process.context.objects.put(f"media/{title.removeprefix('titles/')}/j/h264-240/1-1.m4s", b"late")

    [(_, note)] = held(await examine_disk(settings), "media", "orphan").values()

    assert note.startswith("the catalog removes it, next at ")


async def test_unfinished_uploads_are_told_from_what_ingest_forgot(
    process: Running, settings: Settings, film: Film
) -> None:
    title = await Publisher(process, film)._create()
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        ingest = IngestServiceStub(channel)
        request = ingest_pb2.CreateUploadRequest(
            title=title, file_name="film.mp4", size_bytes=99, request_id=str(uuid.uuid4())
        )
        upload = (await ingest.CreateUpload(request)).upload.name
        await ingest.UploadPart(ingest_pb2.UploadPartRequest(name=upload, part=part_of(bytes(50), 0)))
    (settings.data_dir / "uploads" / "forgotten.part").write_bytes(b"x")

    disk = await examine_disk(settings)

    assert held(disk, "upload", "used") == {f"film.mp4 for {title} ({upload})": (50, "")}
    assert held(disk, "upload", "orphan") == {"forgotten.part": (1, "ingest removes it when it starts next")}


async def test_scratch_is_told_by_worker_and_task_and_an_orphan_by_its_free_lock(
    tmp_path: Path, settings: Settings
) -> None:
    orphan = claim(tmp_path / "scratch", "kino-encode-", {"worker": "encoder-9", "task": "jobs/j/tasks/1"})
    (orphan.path / "part").write_bytes(bytes(1000))
    os.close(orphan.handle)
    unfinished = settings.objects_folder / ".tmp"
    unfinished.mkdir(parents=True)
    os.close(claim(unfinished).handle)
    TASK.set("jobs/j/tasks/2")
    async with Scratch(tmp_path / "scratch", owner="encoder-1").folder("encode", 10) as folder:
        (folder / "part").write_bytes(b"12345")
        disk = await examine_disk(settings)

    assert held(disk, "scratch", "used")["encoder-1: jobs/j/tasks/2"] == (5, "")
    size_bytes, note = held(disk, "scratch", "orphan")["encoder-9: jobs/j/tasks/1"]
    assert (size_bytes, note.startswith("the next worker removes it")) == (1000, True)
    assert [note for _, note in held(disk, "unfinished objects", "orphan").values()] == [
        "whoever opens the store next removes it"
    ]
    assert orphan.path.exists()
    assert Scratch(tmp_path / "scratch").collect_orphans() == [orphan.path]


async def test_every_byte_of_the_data_folder_has_one_owner(settings: Settings, film: Film) -> None:
    data = settings.data_dir
    async with serving(data, settings=settings, catalog=build_catalog, ingest=build_ingest) as process:
        publisher = Publisher(process, film)
        await publisher.begin()
        await publisher.publish("h264-240")
    for name, content in (("logs/encoder-1.log", b"log"), ("edge/segment", b"hot"), ("by-hand", b"mine")):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(content)

    done = run_kino("--json", "doctor", "disk", "--data-dir", str(data))
    told: dict[str, Any] = json.loads(done.stdout)

    files = [path for path in data.rglob("*") if path.is_file()]
    owned = [one for one in told["holdings"] if one["kind"] != "scratch"]
    assert sum(one["size_bytes"] for one in owned) == sum(path.stat().st_size for path in files)
    assert {(one["kind"], one["owner"]) for one in owned if one["kind"] in ("logs", "other", "database")} == {
        ("logs", "encoder-1.log"),
        ("other", "by-hand"),
        ("database", "catalog"),
        ("database", "ingest"),
    }
    assert told["disks"][0]["free_bytes"] > 0


def test_a_kino_that_never_ran_has_nothing_and_the_doctor_still_runs_alone(tmp_path: Path) -> None:
    told = json.loads(run_kino("--json", "doctor", "--data-dir", str(tmp_path / "no"), "disk").stdout)
    checks = json.loads(run_kino("--json", "doctor", "--data-dir", str(tmp_path / "no")).stdout)

    assert [one for one in told["holdings"] if one["kind"] != "scratch"] == told["problems"] == []
    assert "sandbox" in {check["check"] for check in checks}


@pytest.mark.engine
async def test_records_and_sizes_come_from_postgresql_where_services_are_there(
    postgres: Postgres, settings: Settings
) -> None:
    names = {"catalog": postgres.new_database(), "ingest": postgres.new_database()}
    urls = {service: postgres.url(name) for service, name in names.items()}
    for service, url in urls.items():
        made = Database(url)
        await made.migrate(f"services.{service}")
        await made.close()
    postgres.execute("INSERT INTO sweeps VALUES ('gone', 'jobs/j', 0, 1)", names["catalog"])
    objects = LocalObjects(settings.objects_folder)
    await objects.put("media/gone/j/h264-240/init.mp4", b"nobody's")
    await objects.close()

    disk = await examine_disk(settings.model_copy(update={"sql_urls": urls}))
    for name in names.values():
        postgres.drop_database(name)

    sizes = held(disk, "database", "used")
    assert min(sizes["catalog (PostgreSQL)"][0], sizes["ingest (PostgreSQL)"][0]) > 0
    assert held(disk, "media", "orphan") == {
        "gone/j h264-240": (8, "the catalog removes it, next at 1970-01-01 00:00 UTC")
    }
    assert disk.problems == ()
