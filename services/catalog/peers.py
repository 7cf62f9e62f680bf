"""The preprocessor as the catalog needs it."""

from __future__ import annotations

import grpc.aio

from kino.media.v1 import media_pb2
from kino.preprocessor.v1 import preprocessor_pb2 as api
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from services.catalog.artwork import Frame
from services.catalog.media_usecases import MediaView
from services.media.messages import timeline_of
from services.runtime.status import error_of

#: A picture of the greatest size takes seconds to decode.
_TIMEOUT_S = 60.0


class GrpcPictures:
    """See `services.catalog.artwork.Pictures`."""

    def __init__(self, stub: PreprocessorServiceStub) -> None:
        self._stub = stub

    async def of_picture(self, data: bytes) -> dict[str, bytes]:
        """See `Pictures.of_picture`."""
        return await self._make(api.MakeArtworkRequest(picture=data))

    async def of_frame(self, frame: Frame) -> dict[str, bytes]:
        """See `Pictures.of_frame`."""
        wanted = api.MakeArtworkRequest.Frame(
            init_object_key=frame.init_key, segment_object_key=frame.segment_key, frame_ticks=frame.ticks
        )
        return await self._make(api.MakeArtworkRequest(frame=wanted))

    def frame_ticks(self, view: MediaView, offset_ns: int) -> int:
        """See `Pictures.frame_ticks`."""
        timeline = timeline_of(media_pb2.Timeline.FromString(view.details.frames))
        return timeline.pts(timeline.picture_frame(timeline.frame_at(offset_ns)))

    async def _make(self, request: api.MakeArtworkRequest) -> dict[str, bytes]:
        try:
            made = await self._stub.MakeArtwork(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from None
        return {"large.jpg": made.large, "small.jpg": made.small}
