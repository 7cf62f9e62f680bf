"""Catalog, preprocessor and scheduler as ingest needs them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import grpc.aio

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.ingest.v1 import ingest_pb2 as ingest
from kino.preprocessor.v1 import preprocessor_pb2 as preprocessor
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from kino.preprocessor.v1.resources_pb2 import Source
from kino.scheduler.v1 import scheduler_pb2 as scheduler
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.ingest.model import TitleHasSource, Upload
from services.ingest.usecases import REFUSALS, TitleInfo
from services.runtime.channels import Channels
from services.runtime.errors import KinoError, RemoteError
from services.runtime.status import error_of, status_of

T = TypeVar("T")

#: A large film's index may lie anywhere in it.
_INSPECT_S = 120.0


class GrpcPeers:
    """See `services.ingest.usecases.Peers`."""

    def __init__(self, channels: Channels) -> None:
        self._catalog = channels.stub(CatalogServiceStub)
        self._preprocessor = channels.stub(PreprocessorServiceStub)
        self._scheduler = channels.stub(SchedulerServiceStub)

    async def title(self, name: str) -> TitleInfo:
        """See `Peers.title`."""
        answer = await _typed(self._catalog.GetTitle(catalog.GetTitleRequest(name=name)))
        free = not answer.title.job or answer.title.state == titles.Title.STATE_FAILED
        return TitleInfo(owner=answer.title.owner, free=free)

    async def inspect(self, upload: Upload) -> None:
        """See `Peers.inspect`."""
        request = preprocessor.InspectSourceRequest(source=_source(upload))
        await _typed(self._preprocessor.InspectSource(request, timeout=_INSPECT_S))

    async def begin_media(self, upload: Upload) -> None:
        """See `Peers.begin_media`."""
        request = catalog.BeginMediaRequest(
            title=upload.title, job=f"jobs/{upload.job_id}", replace=upload.replaces
        )
        try:
            await _typed(self._catalog.BeginMedia(request))
        except RemoteError as error:
            if error.reason == "MEDIA_EXISTS":
                raise TitleHasSource(upload.title) from None
            raise

    async def start_job(self, upload: Upload) -> None:
        """See `Peers.start_job`."""
        request = scheduler.CreateJobRequest(
            job_id=upload.job_id,
            title=upload.title,
            owner=upload.owner,
            source=_source(upload),
            highlights=ingest.CreateUploadRequest.FromString(upload.highlights).highlights,
        )
        await _typed(self._scheduler.CreateJob(request))

    async def fail_media(self, upload: Upload, error: KinoError) -> None:
        """See `Peers.fail_media`."""
        request = catalog.FailMediaRequest(
            title=upload.title, job=f"jobs/{upload.job_id}", error=status_of(error)
        )
        try:
            await _typed(self._catalog.FailMedia(request))
        except RemoteError as refused:
            if refused.code not in REFUSALS:
                raise
            # The title is gone, or has another source by now: nobody waits.


def _source(upload: Upload) -> Source:
    return Source(object_key=upload.object_key, size_bytes=upload.size_bytes, sha256=upload.sha256)


async def _typed(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from None
