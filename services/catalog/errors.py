"""What can go wrong in the catalog, beyond the suite's general errors."""

from __future__ import annotations

from services.runtime.errors import Aborted, FailedPrecondition, NotFound


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


class MediaExists(FailedPrecondition):
    """titles/{title} has media of {job} already; only failed media can be replaced."""

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
