"""What `kino doctor` looks at in S3: it does what Kino does, on objects of its own, and tidies up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from cli.findings import Finding, ok, warning, wrong
from services.runtime.claims import temporary
from services.runtime.errors import KinoError
from services.runtime.ids import new_id
from services.runtime.objects import PATIENCE_S
from services.runtime.settings import Settings, SettingsError

_PATIENCE_S = 2.0
_MOST_CLOCK_ERROR_S = 5.0
#: S3 refuses requests that are signed fifteen minutes away from its own time.
_REFUSED_CLOCK_ERROR_S = 900.0
_SMALL_BYTES = 64 << 10
_PART_BYTES = 5 << 20


async def examine_s3(settings: Settings) -> list[Finding]:
    """Nothing where objects are in a local folder."""
    if settings.objects_store != "s3":
        return []
    with temporary("doctor") as scratch:
        try:
            doctor = _Doctor(settings, scratch)
        except SettingsError as error:
            return [wrong("S3", error.message)]
        try:
            return await doctor.examine()
        finally:
            await doctor.close()


class _Doctor:
    def __init__(self, settings: Settings, scratch: Path) -> None:
        # Imported where it is used: half a second that other commands need not wait.
        from services.runtime import objects_s3, s3

        self._bucket = objects_s3.bucket_of(settings)
        self._store = objects_s3.S3Objects(
            self._bucket, scratch=scratch, whole_bytes=_PART_BYTES, part_bytes=_PART_BYTES
        )
        self._s3 = s3
        self._key = f"doctor/{new_id()}"

    async def close(self) -> None:
        await self._store.close()

    async def examine(self) -> list[Finding]:
        PATIENCE_S.set(_PATIENCE_S)
        try:
            await self._store.check()
        except KinoError as error:
            return [wrong("S3", f"{self._bucket.url}: {error.message}")]
        checks: list[tuple[str, Callable[[], Awaitable[Finding]]]] = [
            ("S3 clock", self._clock),
            ("S3 objects", self._objects),
            ("S3 large objects", self._large),
            ("S3 write-once", self._once),
            ("S3 checksums", self._checksums),
            ("S3 deletion", self._deletion),
        ]
        found = [ok("S3", f"{self._bucket.url} answers, with the bucket {self._bucket.name}.")]
        return found + [await self._checked(name, check) for name, check in checks]

    async def _checked(self, name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
        try:
            return await check()
        except KinoError as error:
            return wrong(name, error.message)

    async def _clock(self) -> Finding:
        answer = await asyncio.to_thread(self._bucket.call, "check", "HEAD")
        away_s = self._s3.difference_s(answer.headers)
        if away_s is None:
            return warning("S3 clock", "The service does not tell its time: keep both clocks by NTP.")
        if abs(away_s) > _MOST_CLOCK_ERROR_S:
            return warning(
                "S3 clock",
                f"It is {away_s:.0f} s away from ours: keep both by NTP, "
                f"beyond {_REFUSED_CLOCK_ERROR_S:.0f} s requests are refused.",
            )
        return ok("S3 clock", "It agrees with ours.")

    async def _objects(self) -> Finding:
        content = self._key.encode() * (_SMALL_BYTES // len(self._key))
        await self._store.put(self._key, content)
        try:
            whole = await self._store.get(self._key)
            ranged = await self._store.get(self._key, 1_000, 1_000)
            listed = [entry.key async for entry in self._store.list("doctor/")]
        finally:
            gone = await self._store.delete(self._key)
        if whole != content or ranged != content[1_000:2_000]:
            return wrong("S3 objects", "What was read is not what was written: choose another service.")
        if self._key not in listed or not gone:
            return wrong("S3 objects", "A written object was not listed: choose a consistent service.")
        return ok("S3 objects", "An object was written, read whole and in part, listed and deleted.")

    async def _large(self) -> Finding:
        content = bytes(_PART_BYTES + 1)
        await self._store.put(self._key, content)
        try:
            same = await self._store.get(self._key) == content
        finally:
            await self._store.delete(self._key)
        if not same:
            return wrong("S3 large objects", "Parts were not put together as sent: choose another service.")
        return ok("S3 large objects", "An object was written in parts and read whole.")

    async def _once(self) -> Finding:
        if await self._store.has_conditions():
            return ok("S3 write-once", "Of two writers of one object the first wins.")
        return warning(
            "S3 write-once",
            "The service ignores `If-None-Match: *`: of two writers at the same moment the later wins.",
        )

    async def _checksums(self) -> Finding:
        def send() -> bool:
            try:
                self._bucket.call("check", "PUT", self._key, body=b"other", sha256=self._s3.EMPTY_SHA256)
            except (KinoError, self._s3.Passing):
                return True
            return False

        if await asyncio.to_thread(send):
            return ok("S3 checksums", "Bytes that were damaged on their way are refused.")
        await asyncio.to_thread(self._bucket.call, "check", "DELETE", self._key, expected=(200, 204))
        return warning(
            "S3 checksums", "The service takes bytes with a wrong checksum: damage shows when they are read."
        )

    async def _deletion(self) -> Finding:
        versions = await asyncio.to_thread(self._asked, "versioning")
        if b"Enabled" in versions:
            return warning(
                "S3 deletion",
                "Versioning is on, so deleted films keep their space: add a lifecycle rule for old versions.",
            )
        if b"<Expiration>" in await asyncio.to_thread(self._asked, "lifecycle"):
            return warning(
                "S3 deletion", "A lifecycle rule deletes objects by age: make sure that Kino's are not meant."
            )
        return ok("S3 deletion", "What Kino deletes is gone, and nothing else is.")

    def _asked(self, what: str) -> bytes:
        """The bucket's configuration; empty where there is none, or it may not be seen."""
        try:
            return self._bucket.call("check", "GET", query={what: ""}).body
        except (KinoError, self._s3.Passing):
            return b""
