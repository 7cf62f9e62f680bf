# ruff: noqa: N802 -- the contract names the methods
from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.ingest.v1 import ingest_pb2 as api
from kino.ingest.v1 import resources_pb2 as resources
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
from tests.integration.scheduler.fakes import Preprocessor, Worker, preprocessor_build

FILM = b"film" * 5000
SHA = hashlib.sha256(FILM).digest()


class Looking(Preprocessor):
    """Takes everything for a film that doesn't begin with `text`."""

    def __init__(self, objects: Any = None) -> None:
        self.refuse = False

    async def InspectSource(
        self, request: preprocessor.InspectSourceRequest, context: Any
    ) -> preprocessor.InspectSourceResponse:
        if self.refuse:
            raise RemoteError(
                code=Code.INVALID_ARGUMENT, reason="SOURCE_IS_PLAYLIST", message="The file is a playlist."
            )
        return preprocessor.InspectSourceResponse()


@dataclass(kw_only=True)
class Suite:
    process: Running
    looking: Looking

    @asynccontextmanager
    async def user(self, name: str = "users/ann", role: str = "publisher") -> AsyncIterator[User]:
        async with channel_of(self.process, user_token(self.process, name, role)) as channel:
            yield User(channel=channel)

    async def sources(self) -> list[str]:
        return [entry.key async for entry in self.process.context.objects.list("sources/")]


@dataclass(kw_only=True)
class User:
    channel: Any

    @property
    def ingest(self) -> IngestServiceStub:
        return IngestServiceStub(self.channel)

    async def title(self) -> str:
        request = catalog.CreateTitleRequest(
            title=titles.Title(display_name="Film"), request_id=str(uuid.uuid4())
        )
        return (await CatalogServiceStub(self.channel).CreateTitle(request)).title.name

    async def begin(self, title: str, size_bytes: int = len(FILM)) -> resources.Upload:
        request = api.CreateUploadRequest(title=title, size_bytes=size_bytes, request_id=str(uuid.uuid4()))
        return (await self.ingest.CreateUpload(request)).upload

    async def send(self, upload: str, start: int = 0, stop: int = len(FILM), step: int = 4096) -> int:
        async def parts() -> AsyncIterator[api.UploadPartsRequest]:
            for at in range(start, stop, step):
                yield api.UploadPartsRequest(name=upload, part=part(at, FILM[at : min(at + step, stop)]))

        return (await self.ingest.UploadParts(parts())).received_bytes

    async def complete(self, upload: str) -> resources.Upload:
        return (await self.ingest.CompleteUpload(api.CompleteUploadRequest(name=upload, sha256=SHA))).upload


def part(offset: int, data: bytes) -> api.Part:
    return api.Part(offset_bytes=offset, data=data, sha256=hashlib.sha256(data).digest())


@asynccontextmanager
async def suite(folder: Path) -> AsyncIterator[Suite]:
    looking = Looking()
    builds: dict[str, Any] = {
        "catalog": catalog_build,
        "preprocessor": preprocessor_build(looking),
        "scheduler": scheduler_build,
        "ingest": ingest_build,
    }
    async with serving(folder, **builds) as process:
        yield Suite(process=process, looking=looking)


async def refusal(call: Any) -> tuple[Code, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = error_of(raised.value)
    return error.code, error.reason, error.metadata


async def test_an_uploaded_film_becomes_a_complete_title(tmp_path: Path) -> None:
    async with suite(tmp_path) as s, s.user() as ann:
        title = await ann.title()
        upload = await ann.begin(title)
        assert await ann.send(upload.name) == len(FILM)
        done = await ann.complete(upload.name)
        assert (done.state, done.sha256) == (resources.Upload.STATE_COMPLETE, SHA)
        key = f"sources/{done.title.removeprefix('titles/')}/{done.name.removeprefix('uploads/')}"
        assert await s.process.context.objects.get(key) == FILM
        async with channel_of(s.process, service_token(s.process, "encoder")) as channel:
            worker = asyncio.create_task(Worker(channel=channel, objects=s.process.context.objects).run())
            job = jobs.Job()
            async for answer in SchedulerServiceStub(ann.channel).WatchJob(
                scheduler.WatchJobRequest(name=done.job)
            ):
                job = answer.job
            worker.cancel()
        assert (job.state, job.owner) == (jobs.Job.STATE_SUCCEEDED, "users/ann")
        found = await CatalogServiceStub(ann.channel).GetTitle(catalog.GetTitleRequest(name=title))
        assert (found.title.state, found.title.job) == (titles.Title.STATE_COMPLETE, done.job)
        assert (await refusal(ann.begin(title)))[:2] == (Code.FAILED_PRECONDITION, "TITLE_HAS_SOURCE")


async def test_a_broken_stream_keeps_the_whole_parts_and_the_upload_goes_on_from_there(
    tmp_path: Path,
) -> None:
    async with suite(tmp_path) as s, s.user() as ann:
        upload = await ann.begin(await ann.title())

        async def broken() -> AsyncIterator[api.UploadPartsRequest]:
            yield api.UploadPartsRequest(name=upload.name, part=part(0, FILM[:5000]))
            yield api.UploadPartsRequest(
                name=upload.name, part=api.Part(offset_bytes=5000, data=b"torn", sha256=bytes(32))
            )

        assert (await refusal(ann.ingest.UploadParts(broken())))[1] == "UPLOAD_CHECKSUM_MISMATCH"
        found = (await ann.ingest.GetUpload(api.GetUploadRequest(name=upload.name))).upload
        assert found.received_bytes == 5000
        assert await ann.send(upload.name, start=5000) == len(FILM)
        assert (await ann.complete(upload.name)).state == resources.Upload.STATE_COMPLETE


async def test_a_refused_source_is_rejected_with_its_reason_and_leaves_nothing(tmp_path: Path) -> None:
    async with suite(tmp_path) as s, s.user() as ann:
        s.looking.refuse = True
        upload = await ann.begin(await ann.title())
        await ann.send(upload.name)
        for _ in range(2):
            assert (await refusal(ann.complete(upload.name)))[:2] == (
                Code.INVALID_ARGUMENT,
                "SOURCE_IS_PLAYLIST",
            )
        found = (await ann.ingest.GetUpload(api.GetUploadRequest(name=upload.name))).upload
        assert (found.state, found.error.message) == (
            resources.Upload.STATE_REJECTED,
            "The file is a playlist.",
        )
        assert await s.sources() == []


async def test_what_a_client_may_not_do_has_its_reason(tmp_path: Path) -> None:
    async with suite(tmp_path) as s, s.user() as ann, s.user("users/bob") as bob:
        title = await ann.title()
        upload = await ann.begin(title)
        wrong = api.UploadPartRequest(name=upload.name, part=part(10, FILM[:10]))
        large = 1 << 50
        assert [
            await refusal(ann.ingest.UploadPart(wrong)),
            (await refusal(bob.ingest.UploadPart(wrong)))[:2],
            (await refusal(ann.begin(title, 0)))[:2],
            (await refusal(ann.begin(title, large)))[:2],
            (await refusal(ann.begin("titles/nowhere")))[:2],
            (await refusal(ann.complete(upload.name)))[:2],
        ] == [
            (Code.OUT_OF_RANGE, "UPLOAD_OFFSET_MISMATCH", {"offset_bytes": "10", "received_bytes": "0"}),
            (Code.PERMISSION_DENIED, "NOT_OWNER"),
            (Code.INVALID_ARGUMENT, "SOURCE_EMPTY"),
            (Code.INVALID_ARGUMENT, "UPLOAD_TOO_LARGE"),
            (Code.NOT_FOUND, "TITLE_NOT_FOUND"),
            (Code.FAILED_PRECONDITION, "UPLOAD_INCOMPLETE"),
        ]


async def test_only_ones_own_uploads_are_listed_page_by_page(tmp_path: Path) -> None:
    async with suite(tmp_path) as s, s.user() as ann, s.user("users/bob") as bob:
        made = [(await ann.begin(await ann.title())).name for _ in range(3)]
        first = await ann.ingest.ListUploads(api.ListUploadsRequest(page_size=2))
        second = await ann.ingest.ListUploads(
            api.ListUploadsRequest(page_size=2, page_token=first.next_page_token)
        )
        listed = [upload.name for page in (first, second) for upload in page.uploads]
        assert (listed, second.next_page_token) == (made[::-1], "")
        assert list((await bob.ingest.ListUploads(api.ListUploadsRequest())).uploads) == []
