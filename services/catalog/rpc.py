"""`kino.catalog.v1.CatalogService`: Protobuf to domain and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import status_pb2

from kino.catalog.v1 import catalog_pb2 as pb
from kino.catalog.v1 import catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as res
from kino.media.v1 import media_pb2
from services.catalog.model import (
    Frames,
    InitSegment,
    Kind,
    Media,
    Rendition,
    Segment,
    Title,
    TitleText,
    Viewer,
)
from services.catalog.usecases import PAGE_BYTES, Catalog, MediaView, Publication
from services.runtime.auth import OPERATOR, principal
from services.runtime.errors import InvalidArgument
from services.runtime.names import parse
from services.runtime.paging import Pager, page_size
from services.runtime.wire import duration

_EDITABLE = ("display_name", "description", "release_year", "genres")
_SEGMENTS_PAGE = 500


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Serves the catalog's use cases."""

    def __init__(self, catalog: Catalog, pager: Pager) -> None:
        """`pager` makes the page tokens of `ListTitles`."""
        self._catalog = catalog
        self._pager = pager

    async def CreateTitle(self, request: pb.CreateTitleRequest, context: Any) -> pb.CreateTitleResponse:
        """See the contract."""
        text = _text(request.title)
        fingerprint = _text_message(text).SerializeToString(deterministic=True)
        title = await self._catalog.create(principal().subject, text, request.request_id, fingerprint)
        return pb.CreateTitleResponse(title=title_message(title))

    async def GetTitle(self, request: pb.GetTitleRequest, context: Any) -> pb.GetTitleResponse:
        """See the contract."""
        return pb.GetTitleResponse(
            title=title_message(await self._catalog.get(_viewer(), _title_id(request.name)))
        )

    async def ListTitles(self, request: pb.ListTitlesRequest, context: Any) -> pb.ListTitlesResponse:
        """See the contract."""
        viewer, limit = _viewer(), page_size(request.page_size)
        query = f"ListTitles {viewer.subject}"
        titles = await self._catalog.titles(
            viewer, _after(self._pager.cursor(query, request.page_token)), limit
        )
        response = pb.ListTitlesResponse(titles=[title_message(title) for title in titles.items])
        if titles.more:
            last = titles.items[-1]
            response.next_page_token = self._pager.token(query, [last.create_time.isoformat(), last.title_id])
        return response

    async def UpdateTitle(self, request: pb.UpdateTitleRequest, context: Any) -> pb.UpdateTitleResponse:
        """See the contract."""
        title_id = parse("titles/{title}", request.title.name, "title.name")["title"]
        fields = _masked(request.update_mask)
        wanted = _text(request.title)
        changes = {field: getattr(wanted, field) for field in fields}
        title = await self._catalog.update(
            _viewer(), title_id, lambda text: replace(text, **changes), request.title.etag
        )
        return pb.UpdateTitleResponse(title=title_message(title))

    async def DeleteTitle(self, request: pb.DeleteTitleRequest, context: Any) -> pb.DeleteTitleResponse:
        """See the contract."""
        await self._catalog.delete(_viewer(), _title_id(request.name))
        return pb.DeleteTitleResponse()

    async def BeginMedia(self, request: pb.BeginMediaRequest, context: Any) -> pb.BeginMediaResponse:
        """See the contract."""
        frames = _frames(request.timeline) if request.HasField("timeline") else None
        renditions = [_rendition(index, rendition) for index, rendition in enumerate(request.renditions)]
        view = await self._catalog.begin_media(_title_id(request.title), request.job, frames, renditions)
        return pb.BeginMediaResponse(media=media_message(view))

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
        view = await self._catalog.get_media(_title_id(request.title))
        return pb.GetMediaResponse(media=media_message(view), title=title_message(view.title))

    async def ListSegments(self, request: pb.ListSegmentsRequest, context: Any) -> pb.ListSegmentsResponse:
        """See the contract."""
        limit = request.page_size or _SEGMENTS_PAGE
        found = await self._catalog.list_segments(
            _title_id(request.title), request.rendition_id, request.first_segment, limit
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


def title_message(title: Title) -> res.Title:
    """A title as the contract shows it."""
    message = _text_message(title.text)
    message.name = f"titles/{title.title_id}"
    message.state = res.Title.State.Value(f"STATE_{title.state.name}")
    message.owner = title.owner
    message.job = title.job
    message.etag = title.etag
    message.version = title.version
    message.create_time.FromDatetime(title.create_time)
    message.update_time.FromDatetime(title.update_time)
    if title.playable_time is not None:
        message.playable_time.FromDatetime(title.playable_time)
    if title.complete_time is not None:
        message.complete_time.FromDatetime(title.complete_time)
    if title.duration_ns is not None:
        message.duration.CopyFrom(duration(title.duration_ns))
    if title.error is not None:
        message.error.CopyFrom(status_pb2.Status.FromString(title.error))
    return message


def media_message(view: MediaView) -> res.Media:
    """The media as the contract shows it; frames and highlights are stored encoded and only merged."""
    message = res.Media.FromString(view.details.highlights)
    if view.details.extras:
        message.extras.MergeFromString(view.details.extras)
    message.title = f"titles/{view.title.title_id}"
    message.state = res.Title.State.Value(f"STATE_{view.title.state.name}")
    media = view.media
    if media is None:
        return message
    message.job = media.job
    message.etag = media.etag
    if media.timescale:
        message.timeline.MergeFromString(view.details.frames)
        message.timeline.segment_start_ticks.extend(view.details.starts)
        message.timeline.planned = media.planned
    message.renditions.extend(_rendition_message(rendition, media) for rendition in media.renditions)
    return message


def _rendition_message(rendition: Rendition, media: Media) -> media_pb2.Rendition:
    message = media_pb2.Rendition.FromString(rendition.encoded)
    message.peak_bits_per_second = rendition.peak_bits_per_second
    message.mean_bits_per_second = rendition.mean_bits_per_second
    message.ready_segment_count = rendition.ready_count
    message.complete = rendition.complete(media)
    if rendition.init is not None:
        message.init_object_key = rendition.init.object_key
        message.init_sha256 = rendition.init.sha256
        message.codecs = rendition.init.codecs
        message.timescale = rendition.init.timescale
    return message


def _text(message: res.Title) -> TitleText:
    return TitleText(
        display_name=message.display_name,
        description=message.description,
        release_year=message.release_year,
        genres=tuple(message.genres),
    )


def _text_message(text: TitleText) -> res.Title:
    return res.Title(
        display_name=text.display_name,
        description=text.description,
        release_year=text.release_year,
        genres=text.genres,
    )


def _viewer() -> Viewer:
    caller = principal()
    return Viewer(subject=caller.subject, sees_all=caller.has_role(OPERATOR))


def _title_id(name: str) -> str:
    return parse("titles/{title}", name)["title"]


def _masked(mask: FieldMask) -> Sequence[str]:
    """The fields to change. Raises `InvalidArgument` for none and for those that can't be changed."""
    wrong = [path for path in mask.paths if path not in _EDITABLE]
    if wrong or not mask.paths:
        problem = f"`{wrong[0]}` can't be changed" if wrong else "must name a field"
        raise InvalidArgument("update_mask", f"{problem}; possible are {', '.join(_EDITABLE)}")
    return mask.paths


def _after(cursor: list[str | int | float | None] | None) -> tuple[datetime, str] | None:
    return None if cursor is None else (datetime.fromisoformat(str(cursor[0])), str(cursor[1]))


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
