"""What playback refuses, and why."""

from __future__ import annotations

from services.runtime.errors import (
    Code,
    FailedPrecondition,
    KinoError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
)


class NotEntitled(PermissionDenied):
    """Your account may not watch this now: {cause}."""

    reason = "NOT_ENTITLED"
    fields = ("cause",)


class ConcurrentStreamLimit(ResourceExhausted):
    """All {limit} streams of the account are in use: stop watching on another device first."""

    reason = "CONCURRENT_STREAM_LIMIT"

    def __init__(self, limit: int) -> None:
        super().__init__("concurrent_streams", limit=limit)


class NotAtAnEdge(FailedPrecondition):
    """An edge only streams: start playbacks and list them at the gateway."""

    reason = "NOT_AT_AN_EDGE"


class LeaseLost(FailedPrecondition):
    """The playback was silent for too long and lost its place: start it again."""

    reason = "LEASE_LOST"


class LeaseEnded(FailedPrecondition):
    """The playback was ended: start it again."""

    reason = "LEASE_ENDED"


class TooManyReads(ResourceExhausted):
    """The playback has {limit} streams open already: close one first."""

    reason = "TOO_MANY_READS"

    def __init__(self, limit: int) -> None:
        super().__init__("reads_of_a_lease", limit=limit)


class RenditionNotPlayed(FailedPrecondition):
    """{rendition} cannot go on: it is not among the renditions asked for."""

    reason = "RENDITION_NOT_PLAYED"
    fields = ("rendition",)


class TitleNotFound(NotFound):
    """{resource} does not exist or is not shown."""

    reason = "TITLE_NOT_FOUND"


class ProfileNotFound(NotFound):
    """There is no profile {resource}."""

    reason = "PROFILE_NOT_FOUND"


class TitleNotPlayable(FailedPrecondition):
    """{subject} cannot be played yet: nothing of it is encoded."""

    reason = "TITLE_NOT_PLAYABLE"
    fields = ("subject",)


class TitleReplaced(FailedPrecondition):
    """{subject} was replaced by a newer version: start it again."""

    reason = "TITLE_REPLACED"
    fields = ("subject",)


class TitleOutsideRegion(PermissionDenied):
    """{resource} may not be watched where you are (region {region})."""

    reason = "TITLE_OUTSIDE_REGION"
    fields = ("resource", "region")


class TitleNotYet(FailedPrecondition):
    """{subject} may be watched from {start_time} on."""

    reason = "TITLE_NOT_YET_AVAILABLE"
    fields = ("subject", "start_time")


class TitleExpired(FailedPrecondition):
    """{subject} may not be watched any more: the time for which it was licensed is over."""

    reason = "TITLE_NO_LONGER_AVAILABLE"
    fields = ("subject",)


class OffsetOutOfRange(OutOfRange):
    """The offset lies at or after the end of the title, which lasts {duration_s} s."""

    reason = "OFFSET_OUT_OF_RANGE"
    fields = ("duration_s",)


class CodecNotOffered(FailedPrecondition):
    """The title is not offered in {codec}."""

    reason = "CODEC_NOT_OFFERED"
    fields = ("codec",)


class RenditionNotFound(NotFound):
    """The title has no rendition {resource} of that kind."""

    reason = "RENDITION_NOT_FOUND"


class ExtraNotFound(NotFound):
    """The title has no file {resource} beside its media."""

    reason = "EXTRA_NOT_FOUND"


class SegmentOutOfRange(OutOfRange):
    """The rendition {rendition} has no segment {number}."""

    reason = "SEGMENT_OUT_OF_RANGE"
    fields = ("rendition", "number")


class SegmentNotReady(FailedPrecondition):
    """Segment {number} of {rendition} is not encoded yet: ask again later."""

    reason = "SEGMENT_NOT_READY"
    fields = ("rendition", "number", "retry_after_ms")


class BytesOutOfRange(OutOfRange):
    """first_offset_bytes {offset_bytes} lies beyond the segment's {size_bytes} bytes."""

    reason = "BYTES_OUT_OF_RANGE"
    fields = ("offset_bytes", "size_bytes")


class EdgeWithoutDisk(FailedPrecondition):
    """This node keeps nothing on a disk: set edge_disk_bytes, or run it as `kino serve edge`."""

    reason = "EDGE_WITHOUT_DISK"


class SegmentCorrupt(KinoError):
    """Stored media does not have the checksum it was published with; it was not sent."""

    code = Code.DATA_LOSS
    reason = "SEGMENT_CORRUPT"


class SegmentMissing(KinoError):
    """Stored media that was published is no longer there."""

    code = Code.DATA_LOSS
    reason = "SEGMENT_MISSING"
