"""Uploads: begun, filled, completed, cancelled, forgotten.

Completing is a chain of steps each of which may be repeated: state COMPLETING is stored first, and whoever
finds it (the same call, a repeated one, a new process) goes through the chain again, past the steps that
are done.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from services.ingest.model import (
    LIFETIME,
    PartDiffers,
    Rejection,
    State,
    TitleHasSource,
    Upload,
    UploadChecksumMismatch,
    UploadComplete,
    UploadDamaged,
    UploadEnded,
    check_size,
)
from services.ingest.store import Parts, Store
from services.runtime.clock import Clock
from services.runtime.errors import Code, KinoError
from services.runtime.ids import new_id
from services.runtime.logs import logger
from services.runtime.objects import ChecksumMismatch, ObjectNotFound, ObjectStore

_log = logger("ingest")
_SWEEP_S = 30.0
#: Answers of the other services that refuse the file for good.
REFUSALS = frozenset({Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND})


@dataclass(frozen=True, kw_only=True)
class TitleInfo:
    """What ingest needs to know of a title."""

    owner: str
    #: Whether a source may be uploaded unasked: it has none, or its processing failed.
    free: bool


class Peers(Protocol):
    """The other services."""

    async def title(self, name: str) -> TitleInfo:
        """Raises what catalog says: `NOT_FOUND`."""

    async def inspect(self, upload: Upload) -> None:
        """Whether the object is a film. Raises what the preprocessor says: `SOURCE_…` reasons."""

    async def begin_media(self, upload: Upload) -> None:
        """The title is now being processed by the upload's job; once more changes nothing.

        Raises `TitleHasSource`, and `MEDIA_REPLACED` when a later upload was completed meanwhile.
        """

    async def start_job(self, upload: Upload) -> None:
        """Start the upload's job; starting it twice is starting it once."""

    async def fail_media(self, upload: Upload, error: KinoError) -> None:
        """Tell the title that the upload's job, which it waits for, will never be."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From the settings."""

    max_bytes: int
    quota_bytes: int


class Uploads:
    """What can be done with uploads."""

    def __init__(
        self,
        store: Store,
        parts: Parts,
        objects: ObjectStore,
        peers: Peers,
        clock: Clock,
        limits: Limits,
        failpoint: Callable[[str], None] = lambda step: None,
    ) -> None:
        """`failpoint` is called after each step of a completion, with its name; tests make it raise."""
        self._store = store
        self._parts = parts
        self._objects = objects
        self._peers = peers
        self._clock = clock
        self._limits = limits
        self._failpoint = failpoint
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._completing: dict[str, asyncio.Task[Upload]] = {}

    async def create(
        self,
        *,
        title: str,
        free: bool,
        owner: str,
        file_name: str,
        size_bytes: int,
        highlights: bytes,
        request_id: str,
        replaces: bool = False,
    ) -> Upload:
        """Begin an upload; the same when the request is repeated. `free`: the title may get a source unasked.

        Raises `SourceEmpty`, `UploadTooLarge`, `UploadQuotaExceeded`, `TitleHasSource`, `RequestIdReused`.
        """

        def check(open_bytes: int) -> None:
            if not (free or replaces):
                raise TitleHasSource(title)
            check_size(
                size_bytes,
                max_bytes=self._limits.max_bytes,
                open_bytes=open_bytes,
                quota_bytes=self._limits.quota_bytes,
            )

        now = self._clock.now()
        upload = Upload(
            upload_id=new_id(),
            title=title,
            owner=owner,
            file_name=file_name,
            size_bytes=size_bytes,
            highlights=highlights,
            replaces=replaces,
            create_time=now,
            expire_time=now + LIFETIME,
        )
        fields = [title, file_name, str(size_bytes), highlights.hex(), *["replace"] * replaces]
        return await self._store.create(upload, request_id, "\0".join(fields).encode(), check)

    async def title(self, name: str) -> TitleInfo:
        """A title as far as it matters for an upload."""
        return await self._peers.title(name)

    async def get(self, upload_id: str) -> Upload:
        """Raises `UploadNotFound`."""
        return await self._store.get(upload_id)

    async def newest(self, owner: str | None, after: str, limit: int) -> list[Upload]:
        """Newest first."""
        return await self._store.newest(owner, after, limit)

    async def add_part(self, upload_id: str, offset_bytes: int, data: bytes, sha256: bytes) -> int:
        """Store a part; the bytes received, which are safe when this returns.

        Raises `UploadChecksumMismatch`, `OffsetMismatch`, `PartBeyondEnd`, `PartDiffers`, `UploadEnded`.
        """
        digest = await asyncio.to_thread(hashlib.sha256, data)
        if digest.digest() != sha256:
            raise UploadChecksumMismatch()
        async with self._lock(upload_id):
            upload = await self._store.get(upload_id)
            if not upload.place(offset_bytes, len(data)):
                if await self._parts.read(upload_id, offset_bytes, len(data)) != data:
                    raise PartDiffers(offset_bytes)
                return upload.received_bytes
            await self._parts.append(upload_id, offset_bytes, data)
            received = offset_bytes + len(data)
            await self._store.received(upload_id, received, self._clock.now() + LIFETIME)
            return received

    async def complete(self, upload_id: str, sha256: bytes) -> Upload:
        """Check the whole, hand it to the origin, start its job. Repeated, it goes on or answers the same.

        Raises `UploadIncomplete`, `UploadChecksumMismatch`, `UploadEnded`, and what the preprocessor
        refuses with.
        """
        async with self._lock(upload_id):
            upload = await self._store.begin_completion(upload_id, sha256)
        if upload.state is State.CANCELED:
            raise UploadEnded(upload.state.value)
        if upload.sha256 != sha256:
            raise UploadChecksumMismatch()
        if upload.state is State.COMPLETING:
            # Lives on when the caller's deadline passes: a repetition finds it.
            upload = await asyncio.shield(self._completion(upload_id))
        if upload.rejection is not None:
            raise upload.rejection.error()
        return upload

    async def cancel(self, upload_id: str) -> Upload:
        """Give an upload up. Raises `UploadComplete` when it is, or is being, completed."""
        async with self._lock(upload_id):
            upload = await self._store.end(upload_id, expected=State.RECEIVING, state=State.CANCELED)
            if upload.state in (State.COMPLETE, State.COMPLETING):
                raise UploadComplete(subject=upload.name)
            await self._parts.remove(upload_id)
        return upload

    async def recover(self) -> None:
        """After a start: make files and rows agree; bytes that are missing are asked for again."""
        unfinished = await self._store.in_state(State.RECEIVING, State.COMPLETING)
        short = await self._parts.recover({u.upload_id: u.received_bytes for u in unfinished})
        for upload in unfinished:
            if upload.upload_id in short and upload.state is State.RECEIVING:
                _log.error("received bytes are missing", upload=upload.name)
                await self._store.received(upload.upload_id, short[upload.upload_id], upload.expire_time)

    async def run(self) -> None:
        """Go on with completions that were interrupted, give up stale uploads; until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(_SWEEP_S)

    async def sweep(self) -> None:
        """One round of `run`."""
        for upload in await self._store.expired(self._clock.now()):
            with suppress(UploadComplete):
                await self.cancel(upload.upload_id)
        for upload in await self._store.in_state(State.COMPLETING):
            try:
                await self._completion(upload.upload_id)
            except Exception as error:
                _log.warning("completion interrupted", upload=upload.name, cause=str(error))

    async def close(self) -> None:
        """Stop; completions go on after the next start."""
        for task in list(self._completing.values()):
            task.cancel()
        await asyncio.gather(*self._completing.values(), return_exceptions=True)

    def _lock(self, upload_id: str) -> asyncio.Lock:
        lock = self._locks.get(upload_id)
        if lock is None:
            lock = self._locks[upload_id] = asyncio.Lock()
        return lock

    def _completion(self, upload_id: str) -> asyncio.Task[Upload]:
        """The one task that completes this upload, without the deadline and caller of who begins it."""
        if upload_id not in self._completing:
            task = asyncio.get_running_loop().create_task(
                self._finish(upload_id), context=contextvars.Context()
            )
            self._completing[upload_id] = task
            task.add_done_callback(lambda _: self._completing.pop(upload_id, None))
        return self._completing[upload_id]

    async def _finish(self, upload_id: str) -> Upload:
        upload = await self._store.get(upload_id)
        await self._hand_over(upload)
        begun = False
        try:
            await self._peers.inspect(upload)
            self._failpoint("inspected")
            await self._peers.begin_media(upload)
            begun = True
            self._failpoint("begun")
            await self._peers.start_job(upload)
            self._failpoint("started")
        except KinoError as error:
            if error.code not in REFUSALS:
                raise
            if begun:
                await self._peers.fail_media(upload, error)
            return await self._reject(upload, error)
        upload = await self._store.end(upload_id, expected=State.COMPLETING, state=State.COMPLETE)
        self._failpoint("complete")
        await self._parts.remove(upload_id)
        return upload

    async def _hand_over(self, upload: Upload) -> None:
        """The file as an object of the origin, checked."""
        with suppress(ObjectNotFound):
            if (await self._objects.stat(upload.object_key)).sha256 == upload.sha256.hex():
                return
        source = await self._parts.hand_over(upload.upload_id)
        self._failpoint("linked")
        if source is None:
            await self._store.received(upload.upload_id, 0, upload.expire_time)
            await self._store.end(upload.upload_id, expected=State.COMPLETING, state=State.RECEIVING)
            raise UploadDamaged(subject=upload.name)
        try:
            # The origin compares as it takes the file: to read it twice would take long for a long film.
            await self._objects.put(upload.object_key, source, upload.sha256.hex(), move=True)
        except ChecksumMismatch as error:
            await self._store.end(upload.upload_id, expected=State.COMPLETING, state=State.RECEIVING)
            raise UploadChecksumMismatch() from error
        self._failpoint("moved")

    async def _reject(self, upload: Upload, error: KinoError) -> Upload:
        """The object goes first: a crash in between finds the file still here and comes to the same end."""
        await self._objects.delete(upload.object_key)
        self._failpoint("deleted")
        rejection = Rejection(
            code=error.code, reason=error.reason, message=error.message, metadata=dict(error.metadata)
        )
        upload = await self._store.end(
            upload.upload_id, expected=State.COMPLETING, state=State.REJECTED, rejection=rejection
        )
        self._failpoint("rejected")
        await self._parts.remove(upload.upload_id)
        _log.info("upload rejected", upload=upload.name, reason=rejection.reason)
        return upload
