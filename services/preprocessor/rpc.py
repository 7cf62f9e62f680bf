"""`PreprocessorService`: Protobuf to domain and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio

from kino.preprocessor.v1 import preprocessor_pb2 as api
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceServicer
from services.media.messages import timeline_of
from services.media.scratch import Scratch
from services.preprocessor import artwork, wire
from services.preprocessor.highlights import rank_highlights
from services.preprocessor.ladder import plan_ladder
from services.preprocessor.plan import plan_windows
from services.preprocessor.probe import inspect
from services.runtime.objects import ObjectStore

Context = grpc.aio.ServicerContext[Any, Any]


class PreprocessorServicer(PreprocessorServiceServicer):
    """See the contract."""

    def __init__(self, objects: ObjectStore, video_codecs: Sequence[str], scratch: Scratch) -> None:
        """`video_codecs` are those that ladders are planned for."""
        self._objects, self._codecs, self._scratch = objects, video_codecs, scratch

    async def InspectSource(
        self, request: api.InspectSourceRequest, context: Context
    ) -> api.InspectSourceResponse:
        """See the contract."""
        async with self._objects.file(request.source.object_key) as path:
            report = await inspect(path)
        return api.InspectSourceResponse(report=wire.report_message(report))

    async def PlanWindows(self, request: api.PlanWindowsRequest, context: Context) -> api.PlanWindowsResponse:
        """See the contract."""
        windows = plan_windows(timeline_of(request.timeline))
        return api.PlanWindowsResponse(windows=map(wire.window_message, windows))

    async def PlanLadder(self, request: api.PlanLadderRequest, context: Context) -> api.PlanLadderResponse:
        """See the contract."""
        points = [wire.trial_point_of(point) for point in request.points]
        ladder = plan_ladder(wire.report_of(request.report), self._codecs, points, request.problem)
        return api.PlanLadderResponse(ladder=wire.ladder_message(ladder))

    async def MakeArtwork(self, request: api.MakeArtworkRequest, context: Context) -> api.MakeArtworkResponse:
        """See the contract."""
        if request.WhichOneof("from") == "picture":
            made = await artwork.of_picture(request.picture, self._scratch)
        else:
            frame = request.frame
            init = await self._objects.get(frame.init_object_key)
            segment = await self._objects.get(frame.segment_object_key)
            made = await artwork.of_frame(init, segment, frame.frame_ticks, self._scratch)
        return api.MakeArtworkResponse(large=made.large, small=made.small)

    async def RankHighlights(
        self, request: api.RankHighlightsRequest, context: Context
    ) -> api.RankHighlightsResponse:
        """See the contract."""
        given = [wire.given_highlight(one) for one in request.given]
        ranked = rank_highlights(wire.features_of(request.features), request.timescale, given)
        return api.RankHighlightsResponse(highlights=map(wire.highlight_message, ranked))
