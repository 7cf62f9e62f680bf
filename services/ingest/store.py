"""The port to what ingest remembers: uploads, and the bytes received."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from services.ingest.model import Rejection, State, Upload


class Store(Protocol):
    """Uploads. Every method is one durable transaction."""

    async def create(
        self, upload: Upload, request_id: str, request: bytes, check: Callable[[int], None]
    ) -> Upload:
        """Store a new upload once per owner and `request_id`; a repetition gets the stored one.

        `check` is told the bytes of the owner's unfinished uploads and raises when there is no room. Raises
        `RequestIdReused`.
        """

    async def get(self, upload_id: str) -> Upload:
        """Raises `UploadNotFound`."""

    async def newest(self, owner: str | None, after: str, limit: int) -> list[Upload]:
        """Newest first, from the one after `after` (an id; empty: all); of everybody without owner."""

    async def received(self, upload_id: str, received_bytes: int, expire_time: datetime) -> None:
        """So many bytes are on disk."""

    async def begin_completion(self, upload_id: str, sha256: bytes) -> Upload:
        """RECEIVING becomes COMPLETING, if all bytes are there; the upload as it then is."""

    async def end(
        self, upload_id: str, *, expected: State, state: State, rejection: Rejection | None = None
    ) -> Upload:
        """From `expected` to `state`, from any other nothing; the upload as it then is."""

    async def in_state(self, *states: State) -> list[Upload]:
        """All uploads in these states."""

    async def expired(self, now: datetime) -> list[Upload]:
        """Receiving uploads whose time is over."""


class Parts(Protocol):
    """The bytes of unfinished uploads."""

    async def append(self, upload_id: str, offset_bytes: int, data: bytes) -> None:
        """Write bytes at their place; durable when this returns."""

    async def read(self, upload_id: str, offset_bytes: int, size_bytes: int) -> bytes:
        """Bytes written before; fewer where the file ends."""

    async def hand_over(self, upload_id: str) -> Path | None:
        """A second name for the file, for the origin to take; None when the file is gone."""

    async def remove(self, upload_id: str) -> None:
        """Delete the file, if there."""

    async def recover(self, receiving: dict[str, int]) -> dict[str, int]:
        """After a start: cut files of `receiving` to their length, delete all others.

        The lengths now, by upload, of those that are shorter than they should be.
        """
