"""What can go wrong in the catalog, beyond the suite's general errors."""

from __future__ import annotations

from services.runtime.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted


class TitleNotFound(NotFound):
    """titles/{title} does not exist."""

    reason = "TITLE_NOT_FOUND"
    fields = ("title",)


class RenditionNotFound(NotFound):
    """titles/{title} has no rendition {rendition}."""

    reason = "RENDITION_NOT_FOUND"
    fields = ("title", "rendition")


class TitleChanged(Aborted):
    """titles/{title} was changed in the meantime: read it again and repeat the change."""

    reason = "ETAG_MISMATCH"
    fields = ("title",)


class MediaNotFound(NotFound):
    """titles/{title} has no media of {job}, or none any more."""

    reason = "MEDIA_NOT_FOUND"
    fields = ("title", "job")


class MediaReplaced(FailedPrecondition):
    """A newer source of titles/{title} took the place of what {job} made: upload that again if need be."""

    reason = "MEDIA_REPLACED"
    fields = ("title", "job")


class MediaExists(FailedPrecondition):
    """titles/{title} has media of {job} already; only failed media is replaced unasked."""

    reason = "MEDIA_EXISTS"
    fields = ("title", "job")


class NotTheJob(FailedPrecondition):
    """{job} does not process titles/{title}."""

    reason = "NOT_THE_TITLES_JOB"
    fields = ("title", "job")


class MediaFailed(FailedPrecondition):
    """The processing of titles/{title} has failed for good."""

    reason = "MEDIA_FAILED"
    fields = ("title",)


class MediaComplete(FailedPrecondition):
    """titles/{title} is complete, so its media no longer changes."""

    reason = "MEDIA_COMPLETE"
    fields = ("title",)


class MediaNotRead(FailedPrecondition):
    """The source of titles/{title} has not been read yet: its time axis is unknown."""

    reason = "MEDIA_NOT_READ"
    fields = ("title",)


class GridChanged(FailedPrecondition):
    """The segment starts given for titles/{title} contradict the published ones."""

    reason = "GRID_CHANGED"
    fields = ("title",)


class SegmentOutsideGrid(FailedPrecondition):
    """Segment {number} of {rendition} lies outside the {segment_count} segments planned so far."""

    reason = "SEGMENT_OUTSIDE_GRID"
    fields = ("rendition", "number", "segment_count")


class SegmentAfterLast(FailedPrecondition):
    """The last segment of {rendition} is {last}; {number} contradicts it."""

    reason = "SEGMENT_AFTER_LAST"
    fields = ("rendition", "last", "number")


class InitSegmentDiffers(FailedPrecondition):
    """The init segment of {rendition} is not the published one; all chunks share their parameter sets."""

    reason = "INIT_SEGMENT_DIFFERS"
    fields = ("rendition",)


class SeriesNotFound(NotFound):
    """series/{series} does not exist."""

    reason = "SERIES_NOT_FOUND"
    fields = ("series",)


class SeasonNotFound(NotFound):
    """The series has no season {season}."""

    reason = "SEASON_NOT_FOUND"
    fields = ("season",)


class EpisodeNotFound(NotFound):
    """titles/{title} is no episode of this season."""

    reason = "EPISODE_NOT_FOUND"
    fields = ("title",)


class SeriesChanged(Aborted):
    """series/{series} was changed in the meantime: read it again and repeat the change."""

    reason = "ETAG_MISMATCH"
    fields = ("series",)


class SeasonNumberTaken(AlreadyExists):
    """The series has a season {number} already: choose another number."""

    reason = "SEASON_NUMBER_TAKEN"
    fields = ("number",)


class EpisodeNumberTaken(AlreadyExists):
    """The season has an episode {number} already: choose another number, or 0 for the next one."""

    reason = "EPISODE_NUMBER_TAKEN"
    fields = ("number",)


class AlreadyEpisode(AlreadyExists):
    """titles/{title} is an episode already: take it out of its season first."""

    reason = "ALREADY_EPISODE"
    fields = ("title",)


class SeriesFull(ResourceExhausted):
    """No more than {limit} fit here."""

    reason = "SERIES_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__("series", limit=limit)


class WatchlistFull(ResourceExhausted):
    """The list holds {limit} already: take something off it first."""

    reason = "WATCHLIST_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__("watchlist", limit=limit)


class FrameNotReady(FailedPrecondition):
    """That moment of titles/{title} is not encoded yet: choose another, or wait."""

    reason = "FRAME_NOT_READY"
    fields = ("title",)


class PictureChanged(Aborted):
    """The picture of titles/{title} was changed in the meantime."""

    reason = "PICTURE_CHANGED"
    fields = ("title",)


class ArtworkNotFound(NotFound):
    """There is no picture at this address."""

    reason = "ARTWORK_NOT_FOUND"
