"""Sending a file: parts as one stream, taken up again where it broke, in this run or a later one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from cli.client import Kino
from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as catalog_resources
from kino.ingest.v1 import ingest_pb2, ingest_pb2_grpc, resources_pb2
from kino.media.v1 import media_pb2
from services.runtime.errors import InvalidArgument
from services.runtime.status import error_of

#: Told as it goes: bytes sent, bytes in all.
Progress = Callable[[int, int], None]

_PART_BYTES = 4 << 20
_TRIES = 8
_COMPLETE_TIMEOUT_S = 600.0


class UploadMemory:
    """Which upload a file belongs to, so that the same command goes on where an earlier one was stopped."""

    def __init__(self) -> None:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        self._path = folder / "kino" / "uploads.json"

    def get(self, key: str) -> str | None:
        """Name of the upload begun for `key`."""
        return self._read().get(key)

    def set(self, key: str, upload: str | None) -> None:
        """Remember, or with None forget."""
        entries = {name: value for name, value in self._read().items() if name != key}
        if upload:
            entries[key] = upload
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name("uploads.json.new")
        new.write_text(json.dumps(entries))
        new.replace(self._path)

    def _read(self) -> dict[str, str]:
        try:
            entries: dict[str, str] = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return entries


async def upload(
    kino: Kino,
    path: Path,
    *,
    title: catalog_resources.Title,
    highlights: Sequence[media_pb2.Highlight] = (),
    progress: Progress,
) -> resources_pb2.Upload:
    """Upload a film and start its job; a title with a name gets it instead of the film it has.

    A file that is no film leaves no title behind.

    `progress(sent_bytes, size_bytes)` is told as it goes.

    Raises `InvalidArgument` when the file can't be read, and what the service answers.
    """
    size_bytes, identity = _identify(path)
    memory, key = UploadMemory(), f"{kino.url} {identity} {title.name}".rstrip()
    begun = await _resumable(kino, memory.get(key))
    if begun is None:
        begun = await _begin(kino, path, size_bytes, title, highlights)
        memory.set(key, begun.name)
    digest = asyncio.create_task(asyncio.to_thread(_sha256, path))
    try:
        await _send(kino, path, begun, progress)
        request = ingest_pb2.CompleteUploadRequest(name=begun.name, sha256=await digest)
        stub = kino.stub(ingest_pb2_grpc.IngestServiceStub)
        answer = await stub.CompleteUpload(request, timeout=_COMPLETE_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
            memory.set(key, None)
        if not title.name and error_of(error).reason.startswith("SOURCE_"):
            # The file is refused for good: the title that was made for it would stay empty.
            titles = kino.stub(catalog_pb2_grpc.CatalogServiceStub)
            await titles.DeleteTitle(catalog_pb2.DeleteTitleRequest(name=begun.title))
        raise
    finally:
        digest.cancel()
    memory.set(key, None)
    return answer.upload


def _identify(path: Path) -> tuple[int, str]:
    """Size of a file, and what tells it from another or a changed one."""
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidArgument("file", f"{path} can't be read: {error.strerror}.") from None
    if not path.is_file():
        raise InvalidArgument("file", f"{path} is no file.")
    return status.st_size, f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


async def _resumable(kino: Kino, name: str | None) -> resources_pb2.Upload | None:
    if name is None:
        return None
    stub = kino.stub(ingest_pb2_grpc.IngestServiceStub)
    try:
        found = (await stub.GetUpload(ingest_pb2.GetUploadRequest(name=name))).upload
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED):
            return None
        raise
    return found if found.state == resources_pb2.Upload.STATE_RECEIVING else None


async def _begin(
    kino: Kino,
    path: Path,
    size_bytes: int,
    title: catalog_resources.Title,
    highlights: Sequence[media_pb2.Highlight],
) -> resources_pb2.Upload:
    replace = bool(title.name)
    if not replace:
        create = catalog_pb2.CreateTitleRequest(title=title, request_id=str(uuid.uuid4()))
        title = (await kino.stub(catalog_pb2_grpc.CatalogServiceStub).CreateTitle(create)).title
    request = ingest_pb2.CreateUploadRequest(
        title=title.name,
        file_name=path.name,
        size_bytes=size_bytes,
        request_id=str(uuid.uuid4()),
        highlights=highlights,
        replace=replace,
    )
    return (await kino.stub(ingest_pb2_grpc.IngestServiceStub).CreateUpload(request)).upload


async def _send(kino: Kino, path: Path, begun: resources_pb2.Upload, progress: Progress) -> None:
    stub = kino.stub(ingest_pb2_grpc.IngestServiceStub)
    received_bytes = begun.received_bytes
    for attempt in range(_TRIES):
        progress(received_bytes, begun.size_bytes)
        if received_bytes == begun.size_bytes:
            return
        try:
            answer = await stub.UploadParts(_parts(path, begun, received_bytes, progress))
            received_bytes = answer.received_bytes
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt == _TRIES - 1:
                raise
            await asyncio.sleep(min(2**attempt * 0.25, 10))
            request = ingest_pb2.GetUploadRequest(name=begun.name)
            received_bytes = (
                await stub.GetUpload(request, wait_for_ready=True, timeout=30)
            ).upload.received_bytes


async def _parts(
    path: Path, begun: resources_pb2.Upload, start_bytes: int, progress: Progress
) -> AsyncIterator[ingest_pb2.UploadPartsRequest]:
    with path.open("rb") as file:
        file.seek(start_bytes)
        offset_bytes = start_bytes
        while data := await asyncio.to_thread(file.read, _PART_BYTES):
            part = ingest_pb2.Part(offset_bytes=offset_bytes, data=data, sha256=hashlib.sha256(data).digest())
            yield ingest_pb2.UploadPartsRequest(name=begun.name, part=part)
            offset_bytes += len(data)
            progress(offset_bytes, begun.size_bytes)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
