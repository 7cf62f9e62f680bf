from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.encoder.v1 import encoder_pb2 as encoder
from kino.encoder.v1 import resources_pb2 as resources
from kino.encoder.v1.encoder_pb2_grpc import EncoderServiceStub
from kino.preprocessor.v1 import preprocessor_pb2 as looking
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from kino.scheduler.v1 import resources_pb2 as jobs
from kino.scheduler.v1 import scheduler_pb2 as scheduler
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.encoder import hardware
from services.encoder.bootstrap import build as build_encoder
from services.media import cmaf, sandbox
from services.media.testfilm import FilmSpec, find_flashes, make_film
from services.preprocessor.bootstrap import build as build_preprocessor
from services.runtime.app import Running
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving, settings_in, user_token
from services.scheduler.bootstrap import build as build_scheduler
from services.search.bootstrap import build as build_search
from tests.engines.s3 import S3Server
from tests.support.decoding import decode_beeps, decode_pictures

SPEC = FilmSpec(seconds=Fraction(9), width=426, height=240, cuts=(4.4,), loud=None)
TITLE_REQUEST = "0190d9c0-0000-7000-8000-000000000001"


def suite(folder: Path, **settings: Any) -> AbstractAsyncContextManager[Running]:
    """Everything that a source goes through, in one process."""
    return serving(
        folder,
        settings=settings_in(folder, **settings),
        catalog=build_catalog,
        search=build_search,
        scheduler=build_scheduler,
        preprocessor=build_preprocessor,
        encoder=build_encoder,
    )


async def put_source(process: Running, path: Path) -> preprocessor.Source:
    info = await process.context.objects.put("sources/one", path)
    return preprocessor.Source(
        object_key="sources/one", size_bytes=info.size_bytes, sha256=bytes.fromhex(info.sha256)
    )


async def run_job(process: Running, source: preprocessor.Source) -> tuple[str, jobs.Job]:
    channels = process.context.channels.of_service("ingest")
    made = await channels.stub(CatalogServiceStub).CreateTitle(
        catalog.CreateTitleRequest(title=titles.Title(display_name="One"), request_id=TITLE_REQUEST)
    )
    title = made.title.name
    await channels.stub(CatalogServiceStub).BeginMedia(catalog.BeginMediaRequest(title=title, job="jobs/one"))
    work = channels.stub(SchedulerServiceStub)
    await work.CreateJob(
        scheduler.CreateJobRequest(job_id="one", title=title, owner="users/ann", source=source)
    )
    job = jobs.Job()
    async for word in work.WatchJob(scheduler.WatchJobRequest(name="jobs/one")):
        job = word.job
    return title, job


async def stream_of(process: Running, title: str, pictures: str, sound: str) -> bytes:
    """One file of a title's published segments, as a native client gets it."""
    stub = process.context.channels.of_service("playback").stub(CatalogServiceStub)
    media = (await stub.GetMedia(catalog.GetMediaRequest(title=title))).media
    known = {one.rendition_id: one for one in media.renditions}
    inits, parts = [], []
    for rendition in (pictures, sound):
        assert known[rendition].complete
        inits.append(await process.context.objects.get(known[rendition].init_object_key))
        listed = await stub.ListSegments(catalog.ListSegmentsRequest(title=title, rendition_id=rendition))
        parts.append([await process.context.objects.get(one.object_key) for one in listed.segments])
    assert len(parts[0]) == len(parts[1]) == len(media.timeline.segment_start_ticks)
    return cmaf.combined_init(inits) + b"".join(part for pair in zip(*parts, strict=True) for part in pair)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


async def test_a_source_becomes_a_complete_title_with_every_frame(film: Path, tmp_path: Path) -> None:
    async with suite(tmp_path) as process:
        title, job = await run_job(process, await put_source(process, film))
        assert (job.state, job.progress) == (jobs.Job.STATE_SUCCEEDED, 1.0)
        assert {one.rendition_id for one in job.renditions} == {
            "h264-240",
            "av1-240",
            "aac-128-und-0",
            "opus-96-und-0",
        }
        for pictures, sound in (("h264-240", "aac-128-und-0"), ("av1-240", "opus-96-und-0")):
            stream = await stream_of(process, title, pictures, sound)
            seen = decode_pictures(stream)
            assert seen.numbers == list(range(SPEC.timeline.frame_count))
            assert seen.pts == list(SPEC.timeline.all_pts())
            flashes = [seen.pts[at] / SPEC.timeline.timescale for at in find_flashes(seen.levels)]
            beeps = decode_beeps(stream)
            assert len(flashes) == len(beeps) == 9
            assert max(abs(a - b) for a, b in zip(flashes, beeps, strict=True)) < 0.010
        await check_records(process, title)


@pytest.mark.engine
async def test_a_source_in_s3_is_fetched_once_for_all_its_tasks(
    film: Path, tmp_path: Path, s3: S3Server
) -> None:
    settings = {
        "objects_store": "s3",
        "s3_url": s3.url,
        "s3_bucket": "encode",
        "s3_access_key": s3.access_key,
        "s3_secret_key": s3.secret_key,
    }
    async with suite(tmp_path, **settings) as process:
        source = await put_source(process, film)
        title, job = await run_job(process, source)
        assert job.state == jobs.Job.STATE_SUCCEEDED
        stream = await stream_of(process, title, "h264-240", "aac-128-und-0")
        assert decode_pictures(stream).numbers == list(range(SPEC.timeline.frame_count))
    [copy] = (tmp_path / "scratch" / "copies").iterdir()
    assert (copy.name, copy.stat().st_size) == (source.sha256.hex(), source.size_bytes)


async def check_records(process: Running, title: str) -> None:
    """Every published segment has a record, and comes out of it again byte for byte."""
    async with channel_of(process, user_token(process, "users/root", "operator")) as channel:
        records = await list_records(channel)
        made = {
            (one.rendition_id, segment.number): segment
            for record in records
            for one in record.renditions
            for segment in one.segments
        }
        stub = EncoderServiceStub(channel)
        for record in records:
            assert record.encoder_build.startswith("ffmpeg version")
            assert record.command.startswith("ffmpeg")
            assert f" {record.encoder} " in record.command
            again = await stub.VerifyEncode(encoder.VerifyEncodeRequest(record=record), timeout=300)
            assert again.segments
            assert all(one.published_sha256 == one.repeated_sha256 for one in again.segments)
        wrong = resources.EncodeRecord()
        wrong.CopyFrom(records[0])
        wrong.renditions[0].segments[0].sha256 = bytes(32)
        again = await stub.VerifyEncode(encoder.VerifyEncodeRequest(record=wrong), timeout=300)
        assert again.segments[0].published_sha256 != again.segments[0].repeated_sha256
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.VerifyEncode(encoder.VerifyEncodeRequest(record=wrong, elsewhere=True))
        assert error_of(caught.value).reason == "SAME_WORKER"
    catalogue = process.context.channels.of_service("playback").stub(CatalogServiceStub)
    for rendition in ("h264-240", "av1-240", "aac-128-und-0", "opus-96-und-0"):
        request = catalog.ListSegmentsRequest(title=title, rendition_id=rendition)
        for segment in (await catalogue.ListSegments(request)).segments:
            assert made[rendition, segment.number].sha256 == segment.sha256
            pictures = rendition.endswith("240")
            assert (segment.quality.mean > 70, segment.quality.metric) == (pictures, 1 if pictures else 0)


async def list_records(channel: grpc.aio.Channel) -> list[resources.EncodeRecord]:
    """All records of the job, by pages of three."""
    records: list[resources.EncodeRecord] = []
    request = scheduler.ListEncodeRecordsRequest(name="jobs/one", page_size=3)
    while True:
        page = await SchedulerServiceStub(channel).ListEncodeRecords(request)
        records += page.records
        request.page_token = page.next_page_token
        if not request.page_token:
            return records


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n", "SOURCE_IS_PLAYLIST"),
        (b"hello, this is no film" * 99, "SOURCE_NOT_MEDIA"),
    ],
)
async def test_a_source_that_is_no_film_fails_its_job_at_the_first_try_with_the_reason(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(data)
    async with suite(tmp_path / "data") as process:
        stored = await put_source(process, source)
        _, job = await run_job(process, stored)
        assert job.state == jobs.Job.STATE_FAILED
        explained = (
            await process.context.channels.of_service("cli")
            .stub(SchedulerServiceStub)
            .ExplainJob(scheduler.ExplainJobRequest(name="jobs/one"))
        )
        [task] = explained.tasks
        [attempt] = task.attempts
        assert reason in str(attempt.error.details[0])
        stub = process.context.channels.of_service("ingest").stub(PreprocessorServiceStub)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.InspectSource(looking.InspectSourceRequest(source=stored))
        assert error_of(caught.value).reason == reason


async def test_a_worker_says_what_it_can_do_and_what_shields_it(tmp_path: Path) -> None:
    async with suite(tmp_path) as process:
        stub = process.context.channels.of_service("cli").stub(EncoderServiceStub)
        answer = await stub.GetCapabilities(encoder.GetCapabilitiesRequest())
        assert answer.capabilities.ffmpeg_version.startswith("ffmpeg version")
        assert "resource limits" in answer.capabilities.sandbox
        assert len(answer.capabilities.hardware_encoders) == len(await hardware.known(sandbox.ffmpeg()))
        assert set(answer.capabilities.sandbox) & {"network namespace", "system call filter"}
        idle = await stub.ListRunningTasks(encoder.ListRunningTasksRequest())
        assert list(idle.tasks) == []
