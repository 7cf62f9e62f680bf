"""`IngestService`: Protobuf to domain and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from kino.ingest.v1 import ingest_pb2 as api
from kino.ingest.v1 import resources_pb2 as resources
from kino.ingest.v1.ingest_pb2_grpc import IngestServiceServicer
from services.ingest.model import MAX_PART_BYTES, State, Upload
from services.ingest.usecases import Uploads
from services.runtime.auth import OPERATOR, principal, require_user
from services.runtime.errors import InvalidArgument
from services.runtime.names import parse
from services.runtime.paging import Pager, page_size
from services.runtime.status import status_of
from services.runtime.wire import timestamp

Context = grpc.aio.ServicerContext[Any, Any]

_STATES = {
    State.RECEIVING: resources.Upload.STATE_RECEIVING,
    State.COMPLETING: resources.Upload.STATE_RECEIVING,
    State.COMPLETE: resources.Upload.STATE_COMPLETE,
    State.CANCELED: resources.Upload.STATE_CANCELED,
    State.REJECTED: resources.Upload.STATE_REJECTED,
}


class IngestServicer(IngestServiceServicer):
    """See the contract."""

    def __init__(self, uploads: Uploads, pager: Pager, part_size_bytes: int) -> None:
        self._uploads = uploads
        self._pager = pager
        self._part_size_bytes = min(part_size_bytes, MAX_PART_BYTES)

    async def CreateUpload(
        self, request: api.CreateUploadRequest, context: Context
    ) -> api.CreateUploadResponse:
        """See the contract."""
        title = await self._uploads.title(request.title)
        caller = require_user(title.owner)
        upload = await self._uploads.create(
            title=request.title,
            free=title.free,
            owner=title.owner if caller.is_service else caller.subject,
            file_name=request.file_name,
            size_bytes=request.size_bytes,
            highlights=api.CreateUploadRequest(highlights=request.highlights).SerializeToString(),
            request_id=request.request_id,
            replaces=request.replace,
        )
        return api.CreateUploadResponse(upload=message_of(upload), part_size_bytes=self._part_size_bytes)

    async def GetUpload(self, request: api.GetUploadRequest, context: Context) -> api.GetUploadResponse:
        """See the contract."""
        return api.GetUploadResponse(upload=message_of(await self._own(request.name)))

    async def ListUploads(self, request: api.ListUploadsRequest, context: Context) -> api.ListUploadsResponse:
        """See the contract."""
        caller = principal()
        owner = None if caller.has_role(OPERATOR) else caller.subject
        query = f"uploads of {owner}"
        cursor = self._pager.cursor(query, request.page_token)
        limit = page_size(request.page_size)
        found = await self._uploads.newest(owner, str(cursor[0]) if cursor else "", limit + 1)
        token = self._pager.token(query, [found[limit - 1].upload_id]) if len(found) > limit else ""
        return api.ListUploadsResponse(
            uploads=[message_of(upload) for upload in found[:limit]], next_page_token=token
        )

    async def UploadPart(self, request: api.UploadPartRequest, context: Context) -> api.UploadPartResponse:
        """See the contract."""
        upload = await self._own(request.name)
        return api.UploadPartResponse(received_bytes=await self._add(upload.upload_id, request.part))

    async def UploadParts(
        self, requests: AsyncIterator[api.UploadPartsRequest], context: Context
    ) -> api.UploadPartsResponse:
        """See the contract."""
        upload: Upload | None = None
        received = 0
        async for request in requests:
            if upload is None:
                upload = await self._own(request.name)
            received = await self._add(upload.upload_id, request.part)
        if upload is None:
            raise InvalidArgument("part", "the stream holds no part")
        return api.UploadPartsResponse(received_bytes=received)

    async def CompleteUpload(
        self, request: api.CompleteUploadRequest, context: Context
    ) -> api.CompleteUploadResponse:
        """See the contract."""
        upload = await self._own(request.name)
        upload = await self._uploads.complete(upload.upload_id, request.sha256)
        return api.CompleteUploadResponse(upload=message_of(upload))

    async def CancelUpload(
        self, request: api.CancelUploadRequest, context: Context
    ) -> api.CancelUploadResponse:
        """See the contract."""
        upload = await self._own(request.name)
        return api.CancelUploadResponse(upload=message_of(await self._uploads.cancel(upload.upload_id)))

    async def _add(self, upload_id: str, part: api.Part) -> int:
        return await self._uploads.add_part(upload_id, part.offset_bytes, part.data, part.sha256)

    async def _own(self, name: str) -> Upload:
        upload = await self._uploads.get(parse("uploads/{upload}", name)["upload"])
        require_user(upload.owner)
        return upload


def message_of(upload: Upload) -> resources.Upload:
    """An upload as its owner sees it."""
    complete = upload.state is State.COMPLETE
    return resources.Upload(
        name=upload.name,
        title=upload.title,
        file_name=upload.file_name,
        size_bytes=upload.size_bytes,
        received_bytes=upload.received_bytes,
        state=_STATES[upload.state],
        job=f"jobs/{upload.job_id}" if complete else "",
        error=status_of(upload.rejection.error()) if upload.rejection else None,
        sha256=upload.sha256 if complete else b"",
        owner=upload.owner,
        create_time=timestamp(upload.create_time),
        expire_time=timestamp(upload.expire_time),
        replace=upload.replaces,
    )
