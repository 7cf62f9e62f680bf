"""`EncoderService`: what this worker can do and is doing."""

from __future__ import annotations

from typing import Any

import grpc.aio

from kino.encoder.v1 import encoder_pb2 as api
from kino.encoder.v1.encoder_pb2_grpc import EncoderServiceServicer
from services.media.work import Worker

Context = grpc.aio.ServicerContext[Any, Any]


class EncoderServicer(EncoderServiceServicer):
    """See the contract."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def GetCapabilities(
        self, request: api.GetCapabilitiesRequest, context: Context
    ) -> api.GetCapabilitiesResponse:
        """See the contract."""
        return api.GetCapabilitiesResponse(
            worker=self._worker.worker_id,
            capabilities=self._worker.capabilities,
            slot_count=self._worker.slot_count,
        )

    async def ListRunningTasks(
        self, request: api.ListRunningTasksRequest, context: Context
    ) -> api.ListRunningTasksResponse:
        """See the contract."""
        return api.ListRunningTasksResponse(tasks=self._worker.running())
