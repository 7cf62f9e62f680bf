"""Uploads by their contract, part by part."""

from __future__ import annotations

import hashlib
import uuid

from cli.client import Kino
from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as catalog
from kino.ingest.v1 import ingest_pb2, ingest_pb2_grpc, resources_pb2

PART_BYTES = 64 << 10


def uploads(kino: Kino) -> ingest_pb2_grpc.IngestServiceStub:
    return kino.stub(ingest_pb2_grpc.IngestServiceStub)


def titles(kino: Kino) -> catalog_pb2_grpc.CatalogServiceStub:
    return kino.stub(catalog_pb2_grpc.CatalogServiceStub)


async def new_title(kino: Kino, name: str = "Bad input") -> catalog.Title:
    title = catalog.Title(display_name=name)
    request = catalog_pb2.CreateTitleRequest(title=title, request_id=str(uuid.uuid4()))
    return (await titles(kino).CreateTitle(request)).title


async def get_title(kino: Kino, name: str) -> catalog.Title:
    return (await titles(kino).GetTitle(catalog_pb2.GetTitleRequest(name=name))).title


async def begin(kino: Kino, title: str, size_bytes: int, file_name: str = "film.mp4") -> resources_pb2.Upload:
    request = ingest_pb2.CreateUploadRequest(
        title=title, file_name=file_name, size_bytes=size_bytes, request_id=str(uuid.uuid4())
    )
    return (await uploads(kino).CreateUpload(request)).upload


async def get_upload(kino: Kino, name: str) -> resources_pb2.Upload:
    return (await uploads(kino).GetUpload(ingest_pb2.GetUploadRequest(name=name))).upload


def part_of(data: bytes, start: int, size: int = PART_BYTES) -> ingest_pb2.Part:
    piece = data[start : start + size]
    return ingest_pb2.Part(offset_bytes=start, data=piece, sha256=hashlib.sha256(piece).digest())


async def send(kino: Kino, upload: str, part: ingest_pb2.Part) -> int:
    request = ingest_pb2.UploadPartRequest(name=upload, part=part)
    return (await uploads(kino).UploadPart(request)).received_bytes


async def complete(kino: Kino, upload: str, data: bytes) -> resources_pb2.Upload:
    request = ingest_pb2.CompleteUploadRequest(name=upload, sha256=hashlib.sha256(data).digest())
    return (await uploads(kino).CompleteUpload(request)).upload


async def send_all(kino: Kino, title: str, data: bytes, file_name: str) -> None:
    upload = await begin(kino, title, len(data), file_name)
    for start in range(0, len(data), 1 << 20):
        await send(kino, upload.name, part_of(data, start, 1 << 20))
    await complete(kino, upload.name, data)


async def delete_title(kino: Kino, name: str) -> None:
    await titles(kino).DeleteTitle(catalog_pb2.DeleteTitleRequest(name=name))


async def cancel(kino: Kino, upload: str) -> None:
    await uploads(kino).CancelUpload(ingest_pb2.CancelUploadRequest(name=upload))
