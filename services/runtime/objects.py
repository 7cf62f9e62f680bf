"""The object store: write-once values under keys, in a local folder or any other engine.

An object never changes once it is there, so it may be cached for ever; deleting is the only change.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol

from services.runtime.errors import (
    AlreadyExists,
    Code,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KinoError,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
)

#: How long calls of the current task are repeated while the store is away: short, because callers of an RPC
#: repeat it themselves; workers wait longer.
PATIENCE_S: ContextVar[float] = ContextVar("kino_objects_patience_s", default=2.0)
MAX_KEY_BYTES = 900
PIECE_BYTES = 1 << 20
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,199}(/[A-Za-z0-9][A-Za-z0-9._=-]{0,199})*")


class ObjectNotFound(NotFound):
    """The object {key} does not exist."""

    reason = "OBJECT_NOT_FOUND"
    fields = ("key",)


class ObjectExists(AlreadyExists):
    """The object {key} exists already, with other content."""

    reason = "OBJECT_EXISTS"
    fields = ("key",)


class ChecksumMismatch(FailedPrecondition):
    """The bytes given for {key} do not have the announced checksum."""

    reason = "CHECKSUM_MISMATCH"
    fields: tuple[str, ...] = ("key",)


class ObjectDamaged(KinoError):
    """The stored object {key} no longer has the content that was written."""

    code = Code.DATA_LOSS
    reason = "OBJECT_DAMAGED"
    fields = ("key",)


class ObjectStoreFull(ResourceExhausted):
    """The object store is full: nothing was stored."""

    reason = "STORAGE_FULL"


class ObjectStoreFailed(Internal):
    """The object store failed while it did {operation}: {cause}"""

    reason = "OBJECT_STORE_FAILED"
    fields: tuple[str, ...] = ("operation", "cause")


class ObjectStoreUnavailable(Unavailable):
    """The object store is away at the moment ({cause}): try again."""

    reason = "OBJECT_STORE_UNAVAILABLE"
    fields: tuple[str, ...] = ("cause", "retry_after_ms")


class RangeOutside(OutOfRange):
    """{field}: {problem}"""

    reason = "RANGE_OUTSIDE_OBJECT"


@dataclass(frozen=True, kw_only=True)
class ObjectEntry:
    """One object in a listing."""

    key: str
    size_bytes: int
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class ObjectInfo(ObjectEntry):
    """What is known of an object without reading it."""

    #: Of the whole content, 64 lower-case hexadecimal digits.
    sha256: str


class ObjectWriter(Protocol):
    """Writes one object piece by piece; nothing is visible before `commit`."""

    async def __aenter__(self) -> ObjectWriter:
        """Begin."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what was written unless it was committed."""

    async def write(self, data: bytes) -> None:
        """Append bytes."""

    async def commit(self, sha256: str | None = None) -> ObjectInfo:
        """Make the object durable and visible. Errors as for `ObjectStore.put`."""


class ObjectStore(Protocol):
    """Write-once objects.

    Keys are 1 to 900 bytes of segments joined by `/`; each begins with a letter or digit and holds letters,
    digits, `.`, `_`, `=` and `-`. A bad key raises `InvalidArgument`, a full disk `ObjectStoreFull`,
    everywhere. A store that is away raises `ObjectStoreUnavailable`, after repetitions for `PATIENCE_S`; what
    was acknowledged is there when it is back.
    """

    async def open(self) -> None:
        """Look whether the store can be used and tidy up; every call works without it, as soon as it can.

        May be repeated. Raises `ObjectStoreUnavailable`, or what waiting does not mend.
        """

    async def check(self) -> None:
        """A sign of life. Raises what is wrong."""

    async def close(self) -> None:
        """Wait for what runs and let go."""

    async def put(
        self, key: str, data: bytes | Path, sha256: str | None = None, *, move: bool = False
    ) -> ObjectInfo:
        """Store an object, whole or not at all; durable when this returns.

        A `Path` is read; with `move` the store may take the file itself away instead of copying it. The same
        content again is a success that changes nothing; of concurrent writers the first wins. Raises
        `ObjectExists` for other content, `ChecksumMismatch` when the bytes don't have `sha256`.
        """

    def writer(self, key: str) -> ObjectWriter:
        """A writer for an object too large to hold in memory."""

    async def get(
        self, key: str, start: int = 0, length: int | None = None, *, checked: bool = True
    ) -> bytes:
        """The bytes `[start, start + length)`, cut at the end; None: to the end.

        A whole object is compared with its checksum, unless the caller does that and says `checked=False`.
        Raises `ObjectNotFound`, `RangeOutside` when `start` lies beyond the end, `ObjectDamaged`.
        """

    def stream(
        self, key: str, start: int = 0, length: int | None = None, piece_bytes: int = PIECE_BYTES
    ) -> AsyncIterator[bytes]:
        """The same range in pieces of `piece_bytes` (the last may be shorter). Errors at the first piece.

        The last piece of a whole object is handed out when the checksum is right, else `ObjectDamaged`.
        """

    async def stat(self, key: str) -> ObjectInfo:
        """Size and checksum. Raises `ObjectNotFound`."""

    async def verify(self, key: str) -> ObjectInfo:
        """Read the whole object and compare its checksum. Raises `ObjectDamaged`, `ObjectNotFound`."""

    async def delete(self, key: str) -> bool:
        """Remove the object; False when there was none. Reads under way finish."""

    def list(self, prefix: str = "") -> AsyncIterator[ObjectEntry]:
        """The objects whose key begins with `prefix`, sorted by key (code points)."""

    def file(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A file with the object's content, to be read while the context is open.

        A remote store keeps copies on disk, within a budget. Raises `ObjectNotFound`.
        """


@contextmanager
def file_errors(operation: str) -> Iterator[None]:
    """Raise what the operating system says inside as `ObjectStoreFull` or `ObjectStoreFailed`."""
    try:
        yield
    except KinoError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ObjectStoreFull(quota="disk") from error
        raise ObjectStoreFailed(operation, os.strerror(error.errno or 0)) from error


def is_key(key: str) -> bool:
    """Whether an object may be called so."""
    return len(key) <= MAX_KEY_BYTES and _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """`key` if it is one. Raises `InvalidArgument`."""
    if not is_key(key):
        raise InvalidArgument("key", "is not a key of the object store")
    return key


def check_range(start: int, length: int | None, size_bytes: int) -> int:
    """How many bytes of the object the range covers. Raises `RangeOutside`."""
    if start < 0 or (length is not None and length < 0):
        raise RangeOutside("start" if start < 0 else "length", "must not be negative")
    if start > size_bytes:
        raise RangeOutside("start", f"lies beyond the object's {size_bytes} bytes")
    return size_bytes - start if length is None else min(length, size_bytes - start)
