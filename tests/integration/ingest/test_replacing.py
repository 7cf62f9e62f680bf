"""A newer source for a title, from its upload to the end of the job before it; the worker is scripted."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from cli.client import CredentialFile, Kino
from cli.uploading import upload
from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.ingest.v1 import ingest_pb2 as api
from kino.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from kino.preprocessor.v1 import preprocessor_pb2 as preprocessor
from kino.scheduler.v1 import resources_pb2 as jobs
from kino.scheduler.v1 import scheduler_pb2 as scheduler
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.catalog.bootstrap import build as catalog_build
from services.ingest.bootstrap import build as ingest_build
from services.runtime.app import Running
from services.runtime.errors import Code, RemoteError
from services.runtime.status import error_of
from services.runtime.testing import channel_of, service_token, serving, user_token
from services.scheduler.bootstrap import build as scheduler_build
from services.scheduler.publish import SegmentPublisher
from tests.integration.scheduler.fakes import Preprocessor, Refused, Worker, preprocessor_build

GARBAGE = b"no film"


class Looking(Preprocessor):
    """Takes every file but one for a film."""

    async def InspectSource(  # noqa: N802
        self, request: preprocessor.InspectSourceRequest, context: Any
    ) -> preprocessor.InspectSourceResponse:
        if request.source.sha256 == hashlib.sha256(GARBAGE).digest():
            raise RemoteError(
                code=Code.INVALID_ARGUMENT, reason="SOURCE_NOT_MEDIA", message="The file is no film."
            )
        return preprocessor.InspectSourceResponse()


@dataclass(kw_only=True)
class House:
    """The write path, with a publisher, her title, and a worker that stops before what is held back."""

    process: Running
    channel: grpc.aio.Channel
    title: str = ""
    #: Ends of task names that wait until they are let go.
    held: set[str] = field(default_factory=set)
    failing: str = ""

    async def source(self, data: bytes, *, replace: bool = True) -> str:
        """Upload a file; its job."""
        stub = IngestServiceStub(self.channel)
        request = api.CreateUploadRequest(
            title=self.title, size_bytes=len(data), request_id=str(uuid.uuid4()), replace=replace
        )
        upload = (await stub.CreateUpload(request)).upload
        assert upload.replace == replace
        digest = hashlib.sha256(data).digest()
        part = api.Part(offset_bytes=0, data=data, sha256=digest)
        await stub.UploadPart(api.UploadPartRequest(name=upload.name, part=part))
        done = await stub.CompleteUpload(api.CompleteUploadRequest(name=upload.name, sha256=digest))
        return str(done.upload.job)

    async def now(self) -> titles.Title:
        """The title."""
        request = catalog.GetTitleRequest(name=self.title)
        return (await CatalogServiceStub(self.channel).GetTitle(request)).title

    async def job(self, name: str) -> jobs.Job:
        """A job as it stands."""
        stub = SchedulerServiceStub(self.channel)
        return (await stub.GetJob(scheduler.GetJobRequest(name=name))).job

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that is told nobody."""
        async with asyncio.timeout(60):
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def until_state(self, job: str, state: jobs.Job.State.ValueType) -> jobs.Job:
        """A job, once it is so far."""

        async def holds() -> bool:
            return (await self.job(job)).state == state

        await self.until(holds)
        return await self.job(job)

    async def until_title(self, state: titles.Title.State.ValueType, job: str) -> None:
        """Until the title plays this job's media, so far."""

        async def holds() -> bool:
            title = await self.now()
            return (title.state, title.job) == (state, job)

        await self.until(holds)

    async def objects(self, job: str) -> list[str]:
        """The job's objects."""
        prefix = f"media/{self.title.removeprefix('titles/')}/{job.removeprefix('jobs/')}/"
        return [entry.key async for entry in self.process.context.objects.list(prefix)]

    async def published(self, job: str) -> set[str]:
        """Keys of the media that catalog names, whether it was replaced or not."""
        stub = self.process.context.channels.of_service("playback").stub(CatalogServiceStub)
        media = (await stub.GetMedia(catalog.GetMediaRequest(title=self.title, job=job))).media
        keys = {track.object_key for track in media.extras.text_tracks}
        for rendition in media.renditions:
            request = catalog.ListSegmentsRequest(
                title=self.title, job=job, rendition_id=rendition.rendition_id
            )
            keys |= {segment.object_key for segment in (await stub.ListSegments(request)).segments}
            keys |= {rendition.init_object_key} - {""}
        return keys

    async def script(self, worker: Worker, task: jobs.Task) -> Any:
        """Do a task, unless it is held back."""
        while any(task.name.endswith(end) for end in self.held):  # noqa: ASYNC110 -- told by nobody
            await asyncio.sleep(0.02)
        if self.failing and task.name.endswith(self.failing):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT.value[0], "the file ends early")
        return await worker.result(task)


@asynccontextmanager
async def house(folder: Path, held: set[str], title: str = "") -> AsyncIterator[House]:
    builds: dict[str, Any] = {
        "catalog": catalog_build,
        "preprocessor": preprocessor_build(Looking()),
        "scheduler": scheduler_build,
        "ingest": ingest_build,
    }
    async with (
        serving(folder, **builds) as process,
        channel_of(process, user_token(process, "users/ann", "publisher")) as channel,
        channel_of(process, service_token(process, "encoder")) as work,
    ):
        made = House(process=process, channel=channel, held=held, title=title)
        if not title:
            request = catalog.CreateTitleRequest(request_id=str(uuid.uuid4()))
            request.title.display_name = "Film"
            made.title = (await CatalogServiceStub(channel).CreateTitle(request)).title.name
        worker = Worker(
            channel=work, objects=process.context.objects, seconds=40, slots=8, script=made.script
        )
        working = asyncio.create_task(worker.run())
        try:
            yield made
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def test_a_complete_film_gives_way_to_a_newer_one_and_its_objects_stay_for_who_still_watches(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, set()) as h:
        first = await h.source(b"one", replace=False)
        await h.until_title(titles.Title.STATE_COMPLETE, first)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await h.source(b"two", replace=False)
        assert error_of(refused.value).reason == "TITLE_HAS_SOURCE"
        await h.until_state(first, jobs.Job.STATE_SUCCEEDED)
        before = await h.objects(first)
        second = await h.source(b"two")
        await h.until_title(titles.Title.STATE_COMPLETE, second)
        await h.until_state(second, jobs.Job.STATE_SUCCEEDED)
        assert not (await h.now()).HasField("replacement")
        assert await h.objects(first) == before
        assert await h.published(first) == set(before)
        # A repetition and a late try of the old job change nothing.
        stub = SchedulerServiceStub(h.channel)
        await stub.RetryJob(scheduler.RetryJobRequest(name=first))
        assert (await h.now()).job == second


async def test_a_running_job_goes_on_until_its_replacement_is_playable_and_is_cancelled_then(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, {"00007"}) as h:
        first = await h.source(b"one", replace=False)
        await h.until_title(titles.Title.STATE_PLAYABLE, first)
        h.held.add("probe")
        second = await h.source(b"two")
        replacement = (await h.now()).replacement
        assert (replacement.job, replacement.state) == (second, titles.Replacement.STATE_PROCESSING)
        assert (await h.job(first)).state == jobs.Job.STATE_RUNNING
        h.held.discard("probe")
        await h.until_title(titles.Title.STATE_PLAYABLE, second)
        ended = await h.until_state(first, jobs.Job.STATE_CANCELED)
        assert "newer source" in ended.error.message

        async def cleared() -> bool:
            return set(await h.objects(first)) == await h.published(first)

        await h.until(cleared)
        assert await h.published(first)
        h.held.clear()
        await h.until_title(titles.Title.STATE_COMPLETE, second)


async def test_a_job_that_has_shown_nothing_is_cancelled_when_another_source_comes(tmp_path: Path) -> None:
    async with house(tmp_path, {"probe"}) as h:
        first = await h.source(b"one", replace=False)
        await h.until_state(first, jobs.Job.STATE_RUNNING)
        second = await h.source(b"two")
        await h.until_state(first, jobs.Job.STATE_CANCELED)
        title = await h.now()
        assert (title.job, title.state) == (second, titles.Title.STATE_PROCESSING)
        third = await h.source(b"three")
        await h.until_state(second, jobs.Job.STATE_CANCELED)
        h.held.clear()
        await h.until_title(titles.Title.STATE_COMPLETE, third)
        assert (await h.objects(first), await h.objects(second)) == ([], [])


async def test_a_replacement_that_is_refused_fails_or_is_cancelled_leaves_the_old_film_and_says_why(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, set()) as h:
        first = await h.source(b"one", replace=False)
        await h.until_title(titles.Title.STATE_COMPLETE, first)
        whole = await h.published(first)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await h.source(GARBAGE)
        assert error_of(refused.value).reason == "SOURCE_NOT_MEDIA"
        assert not (await h.now()).HasField("replacement")

        h.failing = "probe"
        second = await h.source(b"two")

        async def failed() -> bool:
            return (await h.now()).replacement.state == titles.Replacement.STATE_FAILED

        await h.until(failed)
        title = await h.now()
        assert (title.job, title.state, title.replacement.job) == (
            first,
            titles.Title.STATE_COMPLETE,
            second,
        )
        assert "the file ends early" in title.replacement.error.message

        h.failing, h.held = "", {"probe"}
        third = await h.source(b"three")
        stub = SchedulerServiceStub(h.channel)
        await stub.CancelJob(scheduler.CancelJobRequest(name=third))
        await h.until(failed)
        title = await h.now()
        assert (title.job, title.replacement.error.message) == (first, "Processing was cancelled.")
        assert await h.published(first) == whole

        h.held = set()
        await stub.RetryJob(scheduler.RetryJobRequest(name=third))
        await h.until_title(titles.Title.STATE_COMPLETE, third)


async def test_a_replacement_of_a_replacement_ends_the_one_before(tmp_path: Path) -> None:
    async with house(tmp_path, set()) as h:
        first = await h.source(b"one", replace=False)
        await h.until_title(titles.Title.STATE_COMPLETE, first)
        h.held = {"probe"}
        second = await h.source(b"two")
        await h.until_state(second, jobs.Job.STATE_RUNNING)
        third = await h.source(b"three")
        assert (await h.until_state(second, jobs.Job.STATE_CANCELED)).error.message
        assert ((await h.now()).job, (await h.now()).replacement.job) == (first, third)
        h.held = set()
        await h.until_title(titles.Title.STATE_COMPLETE, third)


async def test_a_restart_in_the_midst_of_a_replacement_goes_on_with_both_jobs(tmp_path: Path) -> None:
    async with house(tmp_path, {"00007"}) as h:
        first = await h.source(b"one", replace=False)
        await h.until_title(titles.Title.STATE_PLAYABLE, first)
        h.held.add("analyze-00000")
        second = await h.source(b"two")
        await h.until_state(second, jobs.Job.STATE_RUNNING)
        title = h.title
    async with house(tmp_path, {"00007"}, title) as h:
        await h.until_title(titles.Title.STATE_PLAYABLE, second)
        await h.until_state(first, jobs.Job.STATE_CANCELED)
        assert await h.published(first)
        h.held.clear()
        await h.until_title(titles.Title.STATE_COMPLETE, second)
        await h.until_state(second, jobs.Job.STATE_SUCCEEDED)
        assert set(await h.objects(second)) == await h.published(second)


async def test_where_the_order_to_cancel_is_lost_the_replaced_job_ends_by_its_next_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(self: SegmentPublisher, job: object, kept: object = ()) -> None:
        """As if the scheduler had died before."""

    monkeypatch.setattr(SegmentPublisher, "end_replaced", lost)
    async with house(tmp_path, {"00007"}) as h:
        first = await h.source(b"one", replace=False)
        await h.until_title(titles.Title.STATE_PLAYABLE, first)
        second = await h.source(b"two")
        await h.until_title(titles.Title.STATE_PLAYABLE, second)
        assert (await h.job(first)).state == jobs.Job.STATE_RUNNING
        h.held.clear()
        ended = await h.until_state(first, jobs.Job.STATE_CANCELED)
        assert "newer source" in ended.error.message
        await h.until_title(titles.Title.STATE_COMPLETE, second)


async def test_the_command_uploads_a_film_in_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    film = tmp_path / "better.mp4"
    film.write_bytes(b"two")
    async with house(tmp_path / "data", set()) as h:
        first = await h.source(b"one", replace=False)
        await h.until_title(titles.Title.STATE_COMPLETE, first)
        kino = Kino("https://example.org", h.channel, CredentialFile(tmp_path / "credentials"))
        wanted = titles.Title(name=h.title, display_name="better")
        done = await upload(kino, film, title=wanted, progress=lambda sent, size: None)
        assert (done.title, done.replace) == (h.title, True)
        await h.until_title(titles.Title.STATE_COMPLETE, done.job)
        assert (await h.now()).display_name == "Film"
