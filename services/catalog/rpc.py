"""`kino.catalog.v1.CatalogService`: Protobuf to domain and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from kino.catalog.v1 import catalog_pb2 as pb
from kino.catalog.v1 import catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as res
from kino.media.v1 import media_pb2
from services.catalog.artwork import Artwork
from services.catalog.media_usecases import Publication
from services.catalog.model import Frames, InitSegment, Kind, Rendition, Segment
from services.catalog.usecases import PAGE_BYTES, Catalog
from services.catalog.wire import (
    Callers,
    after_of,
    artwork_message,
    availability_message,
    masked,
    media_message,
    text_message,
    text_of,
    title_message,
    viewer,
    windows,
)
from services.runtime.errors import InvalidArgument
from services.runtime.names import parse
from services.runtime.paging import Pager, page_size

_EDITABLE = ("display_name", "description", "release_year", "genres", "rights")
_SEGMENTS_PAGE = 500


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Serves the catalog's use cases."""

    def __init__(self, catalog: Catalog, artwork: Artwork, pager: Pager, callers: Callers) -> None:
        """`pager` makes the page tokens of `ListTitles`."""
        self._catalog = catalog
        self._artwork = artwork
        self._pager = pager
        self._callers = callers

    async def CreateTitle(self, request: pb.CreateTitleRequest, context: Any) -> pb.CreateTitleResponse:
        """See the contract."""
        caller, text = self._callers.of(context), text_of(request.title)
        made = res.Title(unpublished=request.title.unpublished, rights=request.title.rights)
        made.MergeFrom(text_message(text))
        title = await self._catalog.create(
            caller.viewer.subject,
            text,
            request.request_id,
            made.SerializeToString(deterministic=True),
            unpublished=request.title.unpublished,
            rights=windows(request.title.rights),
        )
        return pb.CreateTitleResponse(title=title_message(title, caller))

    async def GetTitle(self, request: pb.GetTitleRequest, context: Any) -> pb.GetTitleResponse:
        """See the contract."""
        caller = self._callers.of(context)
        title = await self._catalog.get(caller.viewer, _title_id(request.name))
        return pb.GetTitleResponse(title=title_message(title, caller))

    async def BatchGetTitles(
        self, request: pb.BatchGetTitlesRequest, context: Any
    ) -> pb.BatchGetTitlesResponse:
        """See the contract."""
        caller = self._callers.of(context)
        titles = await self._catalog.several(caller.viewer, [_title_id(name) for name in request.names])
        return pb.BatchGetTitlesResponse(titles=[title_message(title, caller) for title in titles])

    async def ListTitles(self, request: pb.ListTitlesRequest, context: Any) -> pb.ListTitlesResponse:
        """See the contract."""
        caller, limit = self._callers.of(context), page_size(request.page_size)
        query = f"ListTitles {caller.viewer.subject} {request.without_episodes}"
        titles = await self._catalog.titles(
            caller.viewer,
            after_of(self._pager.cursor(query, request.page_token)),
            limit,
            without_episodes=request.without_episodes,
        )
        response = pb.ListTitlesResponse(titles=[title_message(title, caller) for title in titles.items])
        if titles.more:
            last = titles.items[-1]
            response.next_page_token = self._pager.token(query, [last.create_time.isoformat(), last.title_id])
        return response

    async def UpdateTitle(self, request: pb.UpdateTitleRequest, context: Any) -> pb.UpdateTitleResponse:
        """See the contract."""
        caller = self._callers.of(context)
        title_id = parse("titles/{title}", request.title.name, "title.name")["title"]
        fields = masked(request.update_mask, _EDITABLE)
        wanted = text_of(request.title)
        changes = {field: getattr(wanted, field) for field in fields if field != "rights"}
        title = await self._catalog.update(
            caller.viewer,
            title_id,
            lambda text: replace(text, **changes),
            windows(request.title.rights) if "rights" in fields else None,
            request.title.etag,
        )
        return pb.UpdateTitleResponse(title=title_message(title, caller))

    async def PublishTitle(self, request: pb.PublishTitleRequest, context: Any) -> pb.PublishTitleResponse:
        """See the contract."""
        caller = self._callers.of(context)
        title = await self._catalog.show(caller.viewer, _title_id(request.name), published=True)
        return pb.PublishTitleResponse(title=title_message(title, caller))

    async def UnpublishTitle(
        self, request: pb.UnpublishTitleRequest, context: Any
    ) -> pb.UnpublishTitleResponse:
        """See the contract."""
        caller = self._callers.of(context)
        title = await self._catalog.show(caller.viewer, _title_id(request.name), published=False)
        return pb.UnpublishTitleResponse(title=title_message(title, caller))

    async def CheckAvailability(
        self, request: pb.CheckAvailabilityRequest, context: Any
    ) -> pb.CheckAvailabilityResponse:
        """See the contract."""
        found = await self._catalog.availability(_title_id(request.title), request.region_code)
        return pb.CheckAvailabilityResponse(availability=availability_message(found))

    async def DeleteTitle(self, request: pb.DeleteTitleRequest, context: Any) -> pb.DeleteTitleResponse:
        """See the contract."""
        await self._catalog.delete(viewer(), _title_id(request.name))
        return pb.DeleteTitleResponse()

    async def SetArtwork(self, request: pb.SetArtworkRequest, context: Any) -> pb.SetArtworkResponse:
        """See the contract."""
        if request.WhichOneof("from") == "picture":
            made = await self._artwork.set_picture(viewer(), request.name, request.picture)
        else:
            title_id, offset = _title_id(request.frame.title), request.frame.offset
            made = await self._artwork.set_frame(viewer(), request.name, title_id, offset.ToNanoseconds())
        return pb.SetArtworkResponse(artwork=artwork_message(request.name.partition("/")[2], made))

    async def ClearArtwork(self, request: pb.ClearArtworkRequest, context: Any) -> pb.ClearArtworkResponse:
        """See the contract."""
        await self._artwork.clear(viewer(), request.name)
        return pb.ClearArtworkResponse()

    async def GetArtwork(self, request: pb.GetArtworkRequest, context: Any) -> HttpBody:
        """See the contract."""
        data = await self._artwork.get(request.name)
        await context.send_initial_metadata((("cache-control", "public, max-age=31536000, immutable"),))
        return HttpBody(content_type="image/jpeg", data=data)

    async def BeginMedia(self, request: pb.BeginMediaRequest, context: Any) -> pb.BeginMediaResponse:
        """See the contract."""
        frames = _frames(request.timeline) if request.HasField("timeline") else None
        renditions = [_rendition(index, rendition) for index, rendition in enumerate(request.renditions)]
        view = await self._catalog.begin_media(
            _title_id(request.title), request.job, frames, renditions, replaces=request.replace
        )
        return pb.BeginMediaResponse(media=media_message(view), current_job=view.title.job)

    async def ExtendTimeline(
        self, request: pb.ExtendTimelineRequest, context: Any
    ) -> pb.ExtendTimelineResponse:
        """See the contract."""
        for index, highlight in enumerate(request.highlights):
            if not 0 <= highlight.start_offset.ToNanoseconds() < highlight.end_offset.ToNanoseconds():
                raise InvalidArgument(
                    f"highlights[{index}]", "must end after its start, which is not negative"
                )
        await self._catalog.extend_timeline(
            _title_id(request.title),
            request.job,
            list(request.segment_start_ticks),
            planned=request.planned,
            highlights=res.Media(highlights=request.highlights).SerializeToString(),
        )
        return pb.ExtendTimelineResponse()

    async def PublishSegments(
        self, request: pb.PublishSegmentsRequest, context: Any
    ) -> pb.PublishSegmentsResponse:
        """See the contract."""
        publication = Publication(
            title_id=_title_id(request.title),
            job=request.job,
            rendition_id=request.rendition_id,
            init=InitSegment(
                object_key=request.init_object_key,
                sha256=request.init_sha256,
                codecs=request.codecs,
                timescale=request.timescale,
            ),
            segments=tuple(_segment(segment) for segment in request.segments),
            last=request.last,
        )
        state, lost = await self._catalog.publish(publication)
        return pb.PublishSegmentsResponse(
            state=res.Title.State.Value(f"STATE_{state.name}"), superseded_object_keys=lost
        )

    async def PublishExtras(self, request: pb.PublishExtrasRequest, context: Any) -> pb.PublishExtrasResponse:
        """See the contract."""
        extras = request.extras.SerializeToString(deterministic=True)
        await self._catalog.publish_extras(_title_id(request.title), request.job, extras)
        return pb.PublishExtrasResponse()

    async def FailMedia(self, request: pb.FailMediaRequest, context: Any) -> pb.FailMediaResponse:
        """See the contract."""
        await self._catalog.fail_media(
            _title_id(request.title), request.job, request.error.SerializeToString()
        )
        return pb.FailMediaResponse()

    async def GetMedia(self, request: pb.GetMediaRequest, context: Any) -> pb.GetMediaResponse:
        """See the contract."""
        view = await self._catalog.get_media(_title_id(request.title), request.job)
        return pb.GetMediaResponse(
            media=media_message(view), title=title_message(view.title, self._callers.of(context))
        )

    async def ListSegments(self, request: pb.ListSegmentsRequest, context: Any) -> pb.ListSegmentsResponse:
        """See the contract."""
        limit = request.page_size or _SEGMENTS_PAGE
        found = await self._catalog.list_segments(
            _title_id(request.title), request.rendition_id, request.first_segment, limit, request.job
        )
        response = pb.ListSegmentsResponse()
        size_bytes = 0
        for segment in found:
            if len(response.segments) == limit or size_bytes > PAGE_BYTES:
                response.next_segment = segment.number
                break
            response.segments.append(media_pb2.Segment.FromString(segment.encoded))
            size_bytes += len(segment.encoded)
        return response


def _title_id(name: str) -> str:
    return parse("titles/{title}", name)["title"]


def _frames(timeline: media_pb2.Timeline) -> Frames:
    duration = sum(run.count * run.duration_ticks for run in timeline.frame_runs)
    if not duration:
        raise InvalidArgument("timeline.frame_runs", "must not be empty")
    kept = media_pb2.Timeline(timescale=timeline.timescale, frame_runs=timeline.frame_runs)
    return Frames(
        timescale=timeline.timescale,
        duration_ticks=duration,
        encoded=kept.SerializeToString(),
        starts=tuple(timeline.segment_start_ticks),
        planned=timeline.planned,
    )


def _rendition(index: int, message: media_pb2.Rendition) -> Rendition:
    """A planned rendition; what is measured of published segments is not read."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidArgument(f"renditions[{index}]", "must be of pictures or of sound")
    planned = media_pb2.Rendition(
        rendition_id=message.rendition_id, codecs=message.codecs, timescale=message.timescale
    )
    if kind == "video":
        planned.video.CopyFrom(message.video)
    else:
        planned.audio.CopyFrom(message.audio)
    return Rendition(
        rendition_id=message.rendition_id,
        kind=Kind.VIDEO if kind == "video" else Kind.SOUND,
        h264=message.video.codec == media_pb2.VIDEO_CODEC_H264,
        height=message.video.height,
        encoded=planned.SerializeToString(),
    )


def _segment(message: media_pb2.Segment) -> Segment:
    return Segment(
        number=message.number,
        duration_ticks=message.duration_ticks,
        object_key=message.object_key,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        encoded=message.SerializeToString(),
    )
