"""Uploads and their rules; no I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.runtime.errors import (
    AlreadyExists,
    Code,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    RemoteError,
    ResourceExhausted,
)

#: An upload is given up so long after its last part.
LIFETIME = timedelta(hours=24)
#: Greatest part of the contract.
MAX_PART_BYTES = 4 << 20


class UploadNotFound(NotFound):
    """{resource} does not exist."""

    reason = "UPLOAD_NOT_FOUND"


class SourceEmpty(InvalidArgument):
    """The file is empty."""

    reason = "SOURCE_EMPTY"
    fields = ()


class UploadTooLarge(InvalidArgument):
    """The file has {size_bytes} bytes; at most {max_bytes} are taken."""

    reason = "UPLOAD_TOO_LARGE"
    fields = ("size_bytes", "max_bytes")


class UploadQuotaExceeded(ResourceExhausted):
    """With this file your unfinished uploads would hold {wanted_bytes} bytes; {quota_bytes} are allowed."""

    reason = "UPLOAD_QUOTA_EXCEEDED"
    fields = ("wanted_bytes", "quota_bytes")


class TitleHasSource(FailedPrecondition):
    """{title} has a source already: say that this one is to replace it, or make a new title."""

    reason = "TITLE_HAS_SOURCE"
    fields = ("title",)


class OffsetMismatch(OutOfRange):
    """The part begins at byte {offset_bytes}, but byte {received_bytes} is the next one wanted."""

    reason = "UPLOAD_OFFSET_MISMATCH"
    fields = ("offset_bytes", "received_bytes")


class PartBeyondEnd(OutOfRange):
    """The part ends at byte {end_bytes}, but the file was announced with {size_bytes} bytes."""

    reason = "UPLOAD_PART_BEYOND_END"
    fields = ("end_bytes", "size_bytes")


class PartDiffers(AlreadyExists):
    """The bytes from {offset_bytes} on were received before, and were others."""

    reason = "UPLOAD_PART_DIFFERS"
    fields = ("offset_bytes",)


class UploadChecksumMismatch(InvalidArgument):
    """The bytes do not have the announced SHA-256."""

    reason = "UPLOAD_CHECKSUM_MISMATCH"
    fields = ()


class UploadIncomplete(FailedPrecondition):
    """Only {received_bytes} of {size_bytes} bytes were received."""

    reason = "UPLOAD_INCOMPLETE"
    fields = ("received_bytes", "size_bytes")


class UploadEnded(FailedPrecondition):
    """The upload is {state} and takes nothing more."""

    reason = "UPLOAD_ENDED"
    fields = ("state",)


class UploadComplete(FailedPrecondition):
    """A complete upload can't be cancelled; cancel its job instead."""

    reason = "UPLOAD_COMPLETE"


class UploadDamaged(FailedPrecondition):
    """Bytes of the upload that were received are no longer there: begin a new one."""

    reason = "UPLOAD_DAMAGED"


class State(enum.Enum):
    """Where an upload stands."""

    RECEIVING = "RECEIVING"
    #: Someone asked to complete it; it is checked, moved and looked at, also after a crash.
    COMPLETING = "COMPLETING"
    COMPLETE = "COMPLETE"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"

    @property
    def ended(self) -> bool:
        """Whether its bytes are no longer here."""
        return self in (State.COMPLETE, State.CANCELED, State.REJECTED)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why a file was refused, as the preprocessor said it."""

    code: Code
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)

    def error(self) -> RemoteError:
        """The refusal as the error it was."""
        return RemoteError(code=self.code, reason=self.reason, message=self.message, metadata=self.metadata)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A source file on its way into the origin."""

    upload_id: str
    title: str
    owner: str
    file_name: str
    size_bytes: int
    received_bytes: int = 0
    state: State = State.RECEIVING
    #: Of the whole file, 32 bytes; announced while COMPLETING, true once COMPLETE.
    sha256: bytes = b""
    rejection: Rejection | None = None
    #: `kino.ingest.v1.CreateUploadRequest` holding only the highlights.
    highlights: bytes = b""
    #: Whether it takes the place of the source that the title has.
    replaces: bool = False
    create_time: datetime
    expire_time: datetime

    @property
    def name(self) -> str:
        """Resource name."""
        return f"uploads/{self.upload_id}"

    @property
    def object_key(self) -> str:
        """Where the file is in the origin: below its title, so that it is collected with it."""
        return f"sources/{self.title.removeprefix('titles/')}/{self.upload_id}"

    @property
    def job_id(self) -> str:
        """Id of its job: the same at every try."""
        return self.upload_id

    def place(self, offset_bytes: int, size_bytes: int) -> bool:
        """Whether a part is new (True) or was received before (False).

        Raises `UploadEnded`, `PartBeyondEnd`, `OffsetMismatch`.
        """
        if self.state.ended:
            raise UploadEnded(self.state.value)
        end = offset_bytes + size_bytes
        if end > self.size_bytes:
            raise PartBeyondEnd(end, self.size_bytes)
        if end <= self.received_bytes:
            return False
        if offset_bytes != self.received_bytes:
            raise OffsetMismatch(offset_bytes, self.received_bytes)
        return True


def check_size(size_bytes: int, *, max_bytes: int, open_bytes: int, quota_bytes: int) -> None:
    """Whether a file may be uploaded beside `open_bytes` of unfinished ones.

    Raises `SourceEmpty`, `UploadTooLarge`, `UploadQuotaExceeded`.
    """
    if size_bytes == 0:
        raise SourceEmpty()
    if size_bytes > max_bytes:
        raise UploadTooLarge(size_bytes, max_bytes)
    if open_bytes + size_bytes > quota_bytes:
        raise UploadQuotaExceeded(open_bytes + size_bytes, quota_bytes, quota="upload_bytes")
