"""The other services that playback asks, in its own words."""

from __future__ import annotations

from datetime import UTC
from fractions import Fraction

import grpc
import grpc.aio

from kino.billing.v1 import billing_pb2
from kino.billing.v1.billing_pb2_grpc import BillingServiceStub
from kino.catalog.v1 import catalog_pb2, series_pb2
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.catalog.v1.resources_pb2 import Availability, Title
from kino.catalog.v1.series_pb2_grpc import SeriesServiceStub
from kino.history.v1 import history_pb2
from kino.history.v1.history_pb2_grpc import HistoryServiceStub
from kino.identity.v1 import identity_pb2
from kino.identity.v1.identity_pb2_grpc import IdentityServiceStub
from kino.media.v1 import media_pb2
from services.media.languages import language_tag
from services.media.time import FrameRun, Timeline
from services.playback.errors import (
    TitleExpired,
    TitleNotFound,
    TitleNotYet,
    TitleOutsideRegion,
    TitleReplaced,
)
from services.playback.model import (
    AudioCodec,
    AudioTrack,
    Fragment,
    Rendition,
    Segment,
    Storyboard,
    TextTrack,
    TitleMedia,
    VideoCodec,
    VideoTrack,
)
from services.playback.rpc_remembered import RememberedCatalog
from services.playback.usecases import Entitlement
from services.runtime.errors import KinoError, Unavailable
from services.runtime.status import error_of, forwarded

#: History must not hold up a start for longer than this.
HISTORY_TIMEOUT_S = 1.5

VIDEO_CODECS = {
    media_pb2.VIDEO_CODEC_H264: VideoCodec.H264,
    media_pb2.VIDEO_CODEC_HEVC: VideoCodec.HEVC,
    media_pb2.VIDEO_CODEC_AV1: VideoCodec.AV1,
}
AUDIO_CODECS = {media_pb2.AUDIO_CODEC_AAC: AudioCodec.AAC, media_pb2.AUDIO_CODEC_OPUS: AudioCodec.OPUS}


def _typed(error: grpc.aio.AioRpcError) -> KinoError:
    """Another service's answer as our own error; one that says nothing to our caller as `Unavailable`."""
    return forwarded(error) or Unavailable(1_000)


class CatalogClient:
    """See `titles.Catalog` and `usecases.Rights`."""

    def __init__(self, stub: CatalogServiceStub | RememberedCatalog) -> None:
        self._stub = stub

    async def media(self, title: str, job: str) -> TitleMedia:
        """See `titles.Catalog.media`."""
        try:
            answer = await self._stub.GetMedia(catalog_pb2.GetMediaRequest(title=title, job=job))
        except grpc.aio.AioRpcError as error:
            if error_of(error).reason == "MEDIA_NOT_FOUND":
                raise TitleReplaced(title) from error
            missing = error.code() is grpc.StatusCode.NOT_FOUND
            raise (TitleNotFound(title) if missing else _typed(error)) from error
        return media_of(answer)

    async def check_rights(self, title: str, region: str) -> None:
        """See `usecases.Rights.check_rights`."""
        request = catalog_pb2.CheckAvailabilityRequest(title=title, region_code=region)
        try:
            found = (await self._stub.CheckAvailability(request)).availability
        except grpc.aio.AioRpcError as error:
            missing = error.code() is grpc.StatusCode.NOT_FOUND
            raise (TitleNotFound(title) if missing else _typed(error)) from error
        if found.state == Availability.STATE_OUTSIDE_REGION:
            raise TitleOutsideRegion(title, region or "unknown")
        if found.state == Availability.STATE_UPCOMING:
            raise TitleNotYet(title, found.change_time.ToDatetime(UTC).isoformat())
        if found.state == Availability.STATE_EXPIRED:
            raise TitleExpired(title)

    async def segments(
        self, title: str, job: str, rendition_id: str, first: int, page_size: int
    ) -> list[Segment]:
        """See `titles.Catalog.segments`."""
        request = catalog_pb2.ListSegmentsRequest(
            title=title, job=job, rendition_id=rendition_id, first_segment=first, page_size=page_size
        )
        try:
            answer = await self._stub.ListSegments(request)
        except grpc.aio.AioRpcError as error:
            raise _typed(error) from error
        return [_segment(segment) for segment in answer.segments]


class SeriesClient:
    """See `plan.Episodes`."""

    def __init__(self, stub: SeriesServiceStub) -> None:
        self._stub = stub

    async def after(self, title: str) -> str | None:
        """See `plan.Episodes.after`."""
        try:
            answer = await self._stub.GetNextEpisode(series_pb2.GetNextEpisodeRequest(title=title))
        except grpc.aio.AioRpcError as error:
            raise _typed(error) from error
        return answer.episode.title or None


class BillingClient:
    """See `usecases.Entitlements`."""

    def __init__(self, stub: BillingServiceStub) -> None:
        self._stub = stub

    async def of(self, user: str) -> Entitlement:
        """See `usecases.Entitlements.of`."""
        try:
            answer = await self._stub.CheckEntitlement(billing_pb2.CheckEntitlementRequest(user=user))
        except grpc.aio.AioRpcError as error:
            raise _typed(error) from error
        found = answer.entitlement
        return Entitlement(
            entitled=found.entitled,
            concurrent_stream_limit=found.concurrent_stream_limit,
            reason=found.reason or "NO_SUBSCRIPTION",
        )


class IdentityClient:
    """See `usecases.Profiles`."""

    def __init__(self, stub: IdentityServiceStub) -> None:
        self._stub = stub

    async def exists(self, profile: str) -> bool:
        """See `usecases.Profiles.exists`."""
        request = identity_pb2.ListProfilesRequest(parent=profile.partition("/profiles/")[0])
        try:
            answer = await self._stub.ListProfiles(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise _typed(error) from error
        return any(found.name == profile for found in answer.profiles)


class HistoryClient:
    """See `usecases.Positions`."""

    def __init__(self, stub: HistoryServiceStub) -> None:
        self._stub = stub

    async def position_ns(self, profile: str, title: str) -> int | None:
        """See `usecases.Positions.position_ns`."""
        request = history_pb2.GetViewRequest(name=f"{profile}/views/{title.removeprefix('titles/')}")
        try:
            answer = await self._stub.GetView(request, timeout=HISTORY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _typed(error) from error
        return answer.view.position.ToNanoseconds()


def media_of(answer: catalog_pb2.GetMediaResponse) -> TitleMedia:
    """What catalog answers to `GetMedia`, in playback's words."""
    media, title = answer.media, answer.title
    runs = tuple(FrameRun(count=r.count, duration_ticks=r.duration_ticks) for r in media.timeline.frame_runs)
    played = title.HasField("playable_time")
    return TitleMedia(
        title=title.name,
        job=media.job,
        owner=title.owner,
        shown=played and not title.unpublished,
        complete=media.state == Title.STATE_COMPLETE if media.replaced else title.HasField("complete_time"),
        replaced=media.replaced,
        timeline=Timeline(timescale=media.timeline.timescale or 1, runs=runs),
        segment_starts=tuple(media.timeline.segment_start_ticks),
        planned=media.timeline.planned,
        renditions=tuple(_rendition(rendition) for rendition in media.renditions),
        playable_time=title.playable_time.ToDatetime(UTC) if played else None,
        message=media,
        texts=tuple(_text(track) for track in media.extras.text_tracks),
        storyboard=_storyboard(media.extras.storyboard) if media.extras.HasField("storyboard") else None,
    )


def _text(message: media_pb2.TextTrack) -> TextTrack:
    return TextTrack(
        track_id=message.track_id,
        language=language_tag(message.language),
        label=message.label,
        default=message.default_track,
        forced=message.forced,
    )


def _storyboard(message: media_pb2.Storyboard) -> Storyboard:
    return Storyboard(
        tile_width=message.tile_width,
        tile_height=message.tile_height,
        columns=message.columns,
        rows=message.rows,
        interval_ns=message.interval.ToNanoseconds(),
        sheet_bytes=max((sheet.size_bytes for sheet in message.sheets), default=0),
    )


def _rendition(message: media_pb2.Rendition) -> Rendition:
    return Rendition(
        rendition_id=message.rendition_id,
        track=_video(message.video) if message.HasField("video") else _audio(message.audio),
        codecs=message.codecs,
        timescale=message.timescale,
        init_key=message.init_object_key,
        init_sha256=message.init_sha256,
        peak_bits_per_second=message.peak_bits_per_second,
        mean_bits_per_second=message.mean_bits_per_second,
        ready_segment_count=message.ready_segment_count,
        complete=message.complete,
    )


def _video(message: media_pb2.VideoTrack) -> VideoTrack:
    rate = Fraction(message.frame_rate.numerator, message.frame_rate.denominator or 1)
    codec = VIDEO_CODECS[message.codec]
    return VideoTrack(codec=codec, width=message.width, height=message.height, frame_rate=rate)


def _audio(message: media_pb2.AudioTrack) -> AudioTrack:
    return AudioTrack(
        codec=AUDIO_CODECS[message.codec],
        sample_rate_hz=message.sample_rate_hz,
        channel_count=message.channel_count,
        language=language_tag(message.language),
    )


def _segment(message: media_pb2.Segment) -> Segment:
    return Segment(
        number=message.number,
        start_ticks=message.start_ticks,
        duration_ticks=message.duration_ticks,
        object_key=message.object_key,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        fragments=tuple(
            Fragment(f.offset_bytes, f.size_bytes, f.start_ticks, f.duration_ticks) for f in message.fragments
        ),
    )
