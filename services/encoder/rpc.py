"""`EncoderService`: what this worker can do and is doing."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from kino.encoder.v1 import encoder_pb2 as api
from kino.encoder.v1.encoder_pb2_grpc import EncoderServiceServicer
from services.encoder.worker import EncodeTasks
from services.media.work import Worker
from services.runtime.errors import FailedPrecondition

Context = grpc.aio.ServicerContext[Any, Any]


class SameWorker(FailedPrecondition):
    """{worker} is not to repeat this encode; ask again for another worker."""

    reason = "SAME_WORKER"
    fields = ("worker",)


class EncoderServicer(EncoderServiceServicer):
    """See the contract."""

    def __init__(self, worker: Worker, tasks: EncodeTasks) -> None:
        self._worker, self._tasks = worker, tasks
        #: One verification at a time, beside the worker's own tasks.
        self._verifying = asyncio.Lock()

    async def GetCapabilities(
        self, request: api.GetCapabilitiesRequest, context: Context
    ) -> api.GetCapabilitiesResponse:
        """See the contract."""
        return api.GetCapabilitiesResponse(
            worker=self._worker.worker_id,
            capabilities=self._worker.capabilities,
            slot_count=self._worker.slot_count,
        )

    async def VerifyEncode(
        self, request: api.VerifyEncodeRequest, context: Context
    ) -> api.VerifyEncodeResponse:
        """See the contract."""
        name = f"workers/{self._worker.worker_id}"
        if (request.elsewhere and request.record.worker == name) or name in request.other_than:
            raise SameWorker(name)
        async with self._verifying:
            segments = await self._tasks.again(request.record)
        return api.VerifyEncodeResponse(
            worker=name, encoder_build=self._worker.capabilities.ffmpeg_version, segments=segments
        )

    async def ListRunningTasks(
        self, request: api.ListRunningTasksRequest, context: Context
    ) -> api.ListRunningTasksResponse:
        """See the contract."""
        return api.ListRunningTasksResponse(tasks=self._worker.running())
