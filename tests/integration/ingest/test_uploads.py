from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from services.ingest.model import (
    OffsetMismatch,
    PartDiffers,
    State,
    TitleHasSource,
    Upload,
    UploadChecksumMismatch,
    UploadComplete,
    UploadEnded,
    UploadIncomplete,
    UploadQuotaExceeded,
)
from services.ingest.parts import PartFiles
from services.ingest.store_sql import SqlStore
from services.ingest.usecases import Limits, TitleInfo, Uploads
from services.runtime.clock import ManualClock
from services.runtime.errors import Code, KinoError, RemoteError
from services.runtime.idempotency import RequestIdReused
from services.runtime.objects_local import LocalObjects
from services.runtime.sql import Database

FILM = bytes(range(256)) * 40
SHA = hashlib.sha256(FILM).digest()
REQUEST = "0b8b0b62-5b0c-4b57-8d0c-7d9ad1a2a7b1"
STEPS = ["linked", "moved", "inspected", "begun", "started", "complete"]


class Crash(Exception):
    pass


@dataclass
class Peers:
    refusal: RemoteError | None = None
    #: What is said when a later upload was completed meanwhile.
    later: RemoteError | None = None
    no_job: RemoteError | None = None
    calls: list[str] = field(default_factory=list)
    jobs: set[str] = field(default_factory=set)

    async def title(self, name: str) -> TitleInfo:
        return TitleInfo(owner="users/ann", free=True)

    async def inspect(self, upload: Upload) -> None:
        self.calls.append("inspect")
        if self.refusal is not None:
            raise self.refusal

    async def begin_media(self, upload: Upload) -> None:
        self.calls.append("begin_media")
        if self.later is not None:
            raise self.later

    async def fail_media(self, upload: Upload, error: KinoError) -> None:
        self.calls.append(f"fail_media {error.reason}")

    async def start_job(self, upload: Upload) -> None:
        self.calls.append("start_job")
        if self.no_job is not None:
            raise self.no_job
        self.jobs.add(upload.job_id)


@dataclass(kw_only=True)
class Place:
    uploads: Uploads
    store: SqlStore
    objects: LocalObjects
    clock: ManualClock
    folder: Path

    async def create(
        self,
        size_bytes: int = len(FILM),
        request_id: str = REQUEST,
        *,
        free: bool = True,
        replaces: bool = False,
    ) -> Upload:
        return await self.uploads.create(
            title="titles/film", free=free, owner="users/ann", file_name="a.mp4", size_bytes=size_bytes,
            highlights=b"", request_id=request_id, replaces=replaces,
        )  # fmt: skip

    async def fill(self, upload: Upload, data: bytes = FILM, step: int = 4096) -> None:
        for at in range(0, len(data), step):
            await self.part(upload, at, data[at : at + step])

    async def part(self, upload: Upload, offset: int, data: bytes) -> int:
        return await self.uploads.add_part(upload.upload_id, offset, data, hashlib.sha256(data).digest())

    async def keys(self) -> list[str]:
        return [entry.key async for entry in self.objects.list()]

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "uploads").iterdir())


@asynccontextmanager
async def place(
    folder: Path, peers: Peers, failpoint: Callable[[str], None] = lambda step: None
) -> AsyncIterator[Place]:
    database = Database(f"sqlite:///{folder}/ingest.db")
    await database.migrate("services.ingest")
    store, clock = SqlStore(database), ManualClock()
    parts, objects = PartFiles(folder / "uploads"), LocalObjects(folder / "objects")
    limits = Limits(max_bytes=1 << 20, quota_bytes=20_000)
    uploads = Uploads(store, parts, objects, peers, clock, limits, failpoint)
    await uploads.recover()
    try:
        yield Place(uploads=uploads, store=store, objects=objects, clock=clock, folder=folder)
    finally:
        await uploads.close()
        parts.close()
        await objects.close()
        await database.close()


async def test_a_film_in_parts_becomes_an_object_and_a_job(tmp_path: Path) -> None:
    peers = Peers()
    async with place(tmp_path, peers) as at:
        upload = await at.create()
        await at.fill(upload)
        done = await at.uploads.complete(upload.upload_id, SHA)
        again = await at.uploads.complete(upload.upload_id, SHA)
        assert (done, done.state, done.sha256) == (again, State.COMPLETE, SHA)
        assert await at.objects.get(upload.object_key) == FILM
        assert peers.calls == ["inspect", "begin_media", "start_job"]
        assert at.files() == []


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_after_any_step_of_a_completion_loses_and_doubles_nothing(
    tmp_path: Path, step: str
) -> None:
    peers = Peers()

    def crash(reached: str) -> None:
        if reached == step:
            raise Crash

    async with place(tmp_path, peers, crash) as at:
        upload = await at.create()
        await at.fill(upload)
        with pytest.raises(Crash):
            await at.uploads.complete(upload.upload_id, SHA)
    async with place(tmp_path, peers) as at:
        await at.uploads.sweep()
        done = await at.uploads.complete(upload.upload_id, SHA)
        assert (done.state, peers.jobs, at.files()) == (State.COMPLETE, {upload.upload_id}, [])
        assert await at.objects.get(upload.object_key) == FILM
        assert await at.keys() == [upload.object_key]


@pytest.mark.parametrize("step", ["moved", "deleted", "rejected"])
async def test_a_refused_file_is_gone_and_keeps_its_reason_whatever_crashes(
    tmp_path: Path, step: str
) -> None:
    refusal = RemoteError(code=Code.INVALID_ARGUMENT, reason="SOURCE_NOT_MEDIA", message="Not a film.")

    def crash(reached: str) -> None:
        if reached == step:
            raise Crash

    async with place(tmp_path, Peers(refusal), crash) as at:
        upload = await at.create()
        await at.fill(upload)
        with pytest.raises(Crash):
            await at.uploads.complete(upload.upload_id, SHA)
    async with place(tmp_path, Peers(refusal)) as at:
        for _ in range(2):
            with pytest.raises(RemoteError) as raised:
                await at.uploads.complete(upload.upload_id, SHA)
            assert (raised.value.code, raised.value.reason) == (Code.INVALID_ARGUMENT, "SOURCE_NOT_MEDIA")
        assert (await at.uploads.get(upload.upload_id)).state is State.REJECTED
        assert (await at.keys(), at.files()) == ([], [])


async def test_a_preprocessor_that_is_away_leaves_the_upload_to_be_completed_later(tmp_path: Path) -> None:
    peers = Peers(RemoteError(code=Code.UNAVAILABLE, reason="UNAVAILABLE", message="away"))
    async with place(tmp_path, peers) as at:
        upload = await at.create()
        await at.fill(upload)
        with pytest.raises(RemoteError):
            await at.uploads.complete(upload.upload_id, SHA)
        peers.refusal = None
        await at.uploads.sweep()
        assert (await at.uploads.get(upload.upload_id)).state is State.COMPLETE


async def test_two_callers_complete_one_upload_once(tmp_path: Path) -> None:
    peers = Peers()
    async with place(tmp_path, peers) as at:
        upload = await at.create()
        await at.fill(upload)
        first, second = await asyncio.gather(*(at.uploads.complete(upload.upload_id, SHA) for _ in range(2)))
        assert (first, peers.calls) == (second, ["inspect", "begin_media", "start_job"])


async def test_parts_out_of_order_repeated_and_differing(tmp_path: Path) -> None:
    async with place(tmp_path, Peers()) as at:
        upload = await at.create()
        assert await at.part(upload, 0, FILM[:100]) == 100
        with pytest.raises(OffsetMismatch):
            await at.part(upload, 200, FILM[200:300])
        assert await at.part(upload, 0, FILM[:100]) == 100
        assert await at.part(upload, 50, FILM[50:100]) == 100
        with pytest.raises(PartDiffers):
            await at.part(upload, 0, b"x" * 100)
        with pytest.raises(UploadChecksumMismatch):
            await at.uploads.add_part(upload.upload_id, 100, FILM[100:200], bytes(32))
        assert (await at.uploads.get(upload.upload_id)).received_bytes == 100
        with pytest.raises(UploadIncomplete):
            await at.uploads.complete(upload.upload_id, SHA)


async def test_bytes_written_but_not_acknowledged_are_cut_at_the_next_start(tmp_path: Path) -> None:
    async with place(tmp_path, Peers()) as at:
        upload = await at.create()
        await at.part(upload, 0, FILM[:100])
    part = tmp_path / "uploads" / f"{upload.upload_id}.part"
    part.write_bytes(FILM[:100] + b"torn")
    (tmp_path / "uploads" / "stranger.part").write_bytes(b"x")
    async with place(tmp_path, Peers()) as at:
        assert part.read_bytes() == FILM[:100]
        await at.part(upload, 100, FILM[100:])
        assert (await at.uploads.complete(upload.upload_id, SHA)).state is State.COMPLETE
        assert at.files() == []


async def test_a_wrong_checksum_of_the_whole_can_be_corrected(tmp_path: Path) -> None:
    async with place(tmp_path, Peers()) as at:
        upload = await at.create()
        await at.fill(upload)
        with pytest.raises(UploadChecksumMismatch):
            await at.uploads.complete(upload.upload_id, bytes(32))
        assert (await at.uploads.complete(upload.upload_id, SHA)).state is State.COMPLETE


async def test_stale_uploads_are_given_up_a_day_after_their_last_part(tmp_path: Path) -> None:
    async with place(tmp_path, Peers()) as at:
        upload = await at.create()
        at.clock.advance(timedelta(hours=23))
        await at.part(upload, 0, FILM[:10])
        at.clock.advance(timedelta(hours=23, minutes=59))
        await at.uploads.sweep()
        assert (await at.uploads.get(upload.upload_id)).state is State.RECEIVING
        at.clock.advance(timedelta(minutes=1))
        await at.uploads.sweep()
        assert ((await at.uploads.get(upload.upload_id)).state, at.files()) == (State.CANCELED, [])


async def test_canceling_twice_succeeds_and_a_complete_upload_cannot_be_canceled(tmp_path: Path) -> None:
    async with place(tmp_path, Peers()) as at:
        first = await at.create()
        await at.part(first, 0, FILM[:10])
        assert await at.uploads.cancel(first.upload_id) == await at.uploads.cancel(first.upload_id)
        with pytest.raises(UploadEnded):
            await at.part(first, 10, FILM[10:20])
        second = await at.create(request_id=REQUEST.replace("0b8b", "1c9c"))
        await at.fill(second)
        await at.uploads.complete(second.upload_id, SHA)
        with pytest.raises(UploadComplete):
            await at.uploads.cancel(second.upload_id)


async def test_a_request_id_makes_one_upload_and_the_quota_counts_it_once(tmp_path: Path) -> None:
    async with place(tmp_path, Peers()) as at:
        first = await at.create()
        assert await at.create(free=False) == first
        with pytest.raises(RequestIdReused):
            await at.create(size_bytes=5)
        with pytest.raises(UploadQuotaExceeded):
            await at.create(request_id=REQUEST.replace("0b8b", "1c9c"))
        await at.uploads.cancel(first.upload_id)
        assert (await at.create(request_id=REQUEST.replace("0b8b", "1c9c"))).upload_id != first.upload_id


async def test_a_title_with_a_source_takes_no_other_unless_it_is_to_replace_that(tmp_path: Path) -> None:
    async with place(tmp_path, Peers()) as at:
        with pytest.raises(TitleHasSource):
            await at.create(free=False)
        replacing = await at.create(free=False, replaces=True)
        assert replacing.replaces
        assert await at.store.get(replacing.upload_id) == replacing
        with pytest.raises(RequestIdReused):
            await at.create()


async def test_an_upload_that_a_later_one_overtook_is_rejected_with_the_reason(tmp_path: Path) -> None:
    later = RemoteError(code=Code.FAILED_PRECONDITION, reason="MEDIA_REPLACED", message="A newer one.")
    async with place(tmp_path, Peers(later=later)) as at:
        upload = await at.create(replaces=True)
        await at.fill(upload)
        with pytest.raises(RemoteError, match="A newer one"):
            await at.uploads.complete(upload.upload_id, SHA)
        rejected = await at.uploads.get(upload.upload_id)
        assert (rejected.state, await at.keys(), at.files()) == (State.REJECTED, [], [])


async def test_a_title_that_waits_for_a_job_is_told_when_the_job_is_refused(tmp_path: Path) -> None:
    refusal = RemoteError(code=Code.INVALID_ARGUMENT, reason="VALIDATION_FAILED", message="No.")
    peers = Peers(no_job=refusal)
    async with place(tmp_path, peers) as at:
        upload = await at.create()
        await at.fill(upload)
        with pytest.raises(RemoteError):
            await at.uploads.complete(upload.upload_id, SHA)
        assert peers.calls == ["inspect", "begin_media", "start_job", "fail_media VALIDATION_FAILED"]
        assert ((await at.uploads.get(upload.upload_id)).state, await at.keys()) == (State.REJECTED, [])
