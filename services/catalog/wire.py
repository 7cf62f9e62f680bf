"""What the catalog's servicers share: the caller, and the domain's values as messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import status_pb2

from kino.catalog.v1 import resources_pb2 as res
from kino.media.v1 import media_pb2
from services.catalog.media_usecases import MediaView
from services.catalog.model import Media, Rendition, Title, Viewer
from services.catalog.rights import Availability, Window, availability
from services.catalog.series import Place, Series
from services.catalog.text import TitleText
from services.runtime.auth import OPERATOR, principal
from services.runtime.clock import Clock
from services.runtime.errors import InvalidArgument
from services.runtime.region import Regions
from services.runtime.wire import duration


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, where and when."""

    viewer: Viewer
    region: str
    now: datetime


class Callers:
    """Knows the caller of the RPC being handled."""

    def __init__(self, regions: Regions, clock: Clock) -> None:
        self._regions = regions
        self._clock = clock

    def of(self, context: Any) -> Caller:
        """Who asks by this call."""
        return Caller(viewer=viewer(), region=self._regions.of(context), now=self._clock.now())


def viewer() -> Viewer:
    """The caller, as far as it matters for what it sees."""
    caller = principal()
    return Viewer(subject=caller.subject, sees_all=caller.has_role(OPERATOR))


def masked(mask: FieldMask, editable: Sequence[str]) -> Sequence[str]:
    """The fields to change. Raises `InvalidArgument` for none and for those that can't be changed."""
    wrong = [path for path in mask.paths if path not in editable]
    if wrong or not mask.paths:
        problem = f"`{wrong[0]}` can't be changed" if wrong else "must name a field"
        raise InvalidArgument("update_mask", f"{problem}; possible are {', '.join(editable)}")
    return mask.paths


def after_of(cursor: list[str | int | float | None] | None) -> tuple[datetime, str] | None:
    """The position in a list that is ordered by time and name."""
    return None if cursor is None else (datetime.fromisoformat(str(cursor[0])), str(cursor[1]))


def text_of(message: res.Title | res.Series) -> TitleText:
    """What people wrote."""
    return TitleText(
        display_name=message.display_name,
        description=message.description,
        release_year=message.release_year,
        genres=tuple(message.genres),
    )


def text_message(text: TitleText) -> res.Title:
    """A title of these words."""
    return res.Title(
        display_name=text.display_name,
        description=text.description,
        release_year=text.release_year,
        genres=text.genres,
    )


def title_message(title: Title, caller: Caller) -> res.Title:
    """A title as the contract shows it to `caller`."""
    message = text_message(title.text)
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
    message.unpublished = title.unpublished
    if title.artwork:
        message.artwork.CopyFrom(artwork_message(title.title_id, title.artwork))
    if title.managed_by(caller.viewer):
        message.rights.extend(_window_message(window) for window in title.rights)
        if title.next_job:
            message.replacement.CopyFrom(_replacement_message(title))
    message.availability.CopyFrom(availability_message(availability(title.rights, caller.region, caller.now)))
    if title.place is not None:
        message.place.CopyFrom(_place_message(title.title_id, title.place))
    return message


def _replacement_message(title: Title) -> res.Replacement:
    if title.next_error is None:
        return res.Replacement(job=title.next_job, state=res.Replacement.STATE_PROCESSING)
    error = status_pb2.Status.FromString(title.next_error)
    return res.Replacement(job=title.next_job, state=res.Replacement.STATE_FAILED, error=error)


def episode_name(title_id: str, place: Place) -> str:
    """The resource name of a title's place in a series."""
    return f"series/{place.series_id}/seasons/{place.season_id}/episodes/{title_id}"


def _place_message(title_id: str, place: Place) -> res.EpisodePlace:
    return res.EpisodePlace(
        episode=episode_name(title_id, place),
        series_display_name=place.series_name,
        season_number=place.season_number,
        episode_number=place.number,
    )


def availability_message(found: Availability) -> res.Availability:
    """Availability as the contract shows it."""
    message = res.Availability(
        state=res.Availability.State.Value(f"STATE_{found.right.name}"), region_code=found.region
    )
    if found.change_time is not None:
        message.change_time.FromDatetime(found.change_time)
    return message


def windows(messages: Sequence[res.RightsWindow]) -> tuple[Window, ...]:
    """Rights as the domain knows them."""
    return tuple(
        Window(
            start=one.start_time.ToDatetime(UTC) if one.HasField("start_time") else None,
            end=one.end_time.ToDatetime(UTC) if one.HasField("end_time") else None,
            regions=tuple(one.region_codes),
        )
        for one in messages
    )


def _window_message(window: Window) -> res.RightsWindow:
    message = res.RightsWindow(region_codes=window.regions)
    if window.start is not None:
        message.start_time.FromDatetime(window.start)
    if window.end is not None:
        message.end_time.FromDatetime(window.end)
    return message


def series_message(series: Series) -> res.Series:
    """A series as the contract shows it."""
    message = res.Series(
        name=f"series/{series.series_id}",
        display_name=series.text.display_name,
        description=series.text.description,
        release_year=series.text.release_year,
        genres=series.text.genres,
        owner=series.owner,
        etag=series.etag,
    )
    message.create_time.FromDatetime(series.create_time)
    message.update_time.FromDatetime(series.update_time)
    if series.artwork:
        message.artwork.CopyFrom(artwork_message(series.series_id, series.artwork))
    return message


def artwork_message(owner_id: str, artwork: str) -> res.Artwork:
    """Where a picture is."""
    folder = f"/v1/artwork/{owner_id}/{artwork}"
    return res.Artwork(large_path=f"{folder}/large.jpg", small_path=f"{folder}/small.jpg")


def media_message(view: MediaView) -> res.Media:
    """The media as the contract shows it; frames and highlights are stored encoded and only merged."""
    message = res.Media.FromString(view.details.highlights)
    if view.details.extras:
        message.extras.MergeFromString(view.details.extras)
    message.title = f"titles/{view.title.title_id}"
    message.state = res.Title.State.Value(f"STATE_{view.state.name}")
    media = view.media
    if media is None:
        return message
    message.job = media.job
    message.etag = media.etag
    message.replaced = media.replaced
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
