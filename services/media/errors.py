"""Everything that can be wrong with a media file or with the programs that open it."""

from __future__ import annotations

from services.runtime.errors import Code, KinoError


class MediaError(KinoError):
    """The media could not be processed: {problem}."""

    code = Code.FAILED_PRECONDITION
    reason = "MEDIA_ERROR"


class MalformedMedia(MediaError):
    """The MP4 data is malformed: {problem}."""

    code = Code.DATA_LOSS
    reason = "MALFORMED_MEDIA"


class PackagingMismatch(MediaError):
    """The encoder's output differs from what the plan asked for: {problem}."""

    code = Code.INTERNAL
    reason = "PACKAGING_MISMATCH"


class SourceNotMedia(MediaError):
    """The file is not a video that Kino can read: {problem}."""

    code = Code.INVALID_ARGUMENT
    reason = "SOURCE_NOT_MEDIA"


class SourceEmpty(MediaError):
    """The file is empty."""

    code = Code.INVALID_ARGUMENT
    reason = "SOURCE_EMPTY"


class SourceTruncated(MediaError):
    """The file ends before its own index says it does: {problem}."""

    code = Code.INVALID_ARGUMENT
    reason = "SOURCE_TRUNCATED"


class SourceHasNoVideo(MediaError):
    """The file holds no video track."""

    code = Code.INVALID_ARGUMENT
    reason = "SOURCE_HAS_NO_VIDEO"


class SourceIsPlaylist(MediaError):
    """The file is a playlist or a script that points at other files; upload the video itself."""

    code = Code.INVALID_ARGUMENT
    reason = "SOURCE_IS_PLAYLIST"


class SourceUnsupported(MediaError):
    """The file holds something that Kino does not process: {problem}."""

    code = Code.INVALID_ARGUMENT
    reason = "SOURCE_UNSUPPORTED"


class SourceChanged(MediaError):
    """Decoding the file gives other frames than its index promised: {problem}."""

    code = Code.DATA_LOSS
    reason = "SOURCE_TIMELINE_MISMATCH"


class SandboxUnavailable(MediaError):
    """Uploads cannot be opened safely here: {problem}. `kino doctor` says what is missing.

    Another worker may be able to.
    """

    code = Code.UNAVAILABLE
    reason = "SANDBOX_UNAVAILABLE"


class SandboxLimit(MediaError):
    """The file needs more than the sandbox allows: {limit}. Convert it, and upload the result."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "SANDBOX_LIMIT"


class SandboxKilled(MediaError):
    """Killed from outside, most likely for lack of memory: give the worker more of it, or fewer slots."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "SANDBOX_KILLED"


class EncoderStalled(MediaError):
    """FFmpeg made no progress for {stall_s} seconds and was ended."""

    code = Code.DEADLINE_EXCEEDED
    reason = "ENCODER_STALLED"


class EncoderFailed(MediaError):
    """FFmpeg ended with code {exit_code}."""

    code = Code.INTERNAL
    reason = "ENCODER_FAILED"
