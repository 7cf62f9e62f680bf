"""Encoding into the origin: each attempt writes to keys of its own, and says what it wrote."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.encoder.model import (
    AudioRung,
    Chunk,
    Rendition,
    Segment,
    SoundSpan,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.encoder.trial import Trial, try_ladder
from services.media.errors import PackagingMismatch
from services.media.pictures import PictureFormat
from services.media.scratch import Scratch
from services.runtime.errors import AlreadyExists
from services.runtime.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class StoredSegment:
    """A segment and the key it was written to."""

    object_key: str
    segment: Segment


@dataclass(frozen=True, kw_only=True)
class StoredRendition:
    """Segments of one rendition in the origin."""

    rendition: Rendition
    init_object_key: str
    init_sha256: bytes
    segments: tuple[StoredSegment, ...]


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where one attempt writes."""

    #: `media/{title}/{job}`
    prefix: str
    #: Different for every attempt at a task.
    attempt: int


Report = Callable[[float], None]


def _unheard(share: float) -> None:
    """The report that nobody wants."""


class Engine(Protocol):
    """What encodes; `FfmpegEngine` is the one there is."""

    @property
    def scratch(self) -> Scratch:
        """Where it works."""

    async def video(
        self,
        source: Path,
        chunk: Chunk,
        clock: SourceClock,
        codec: VideoCodec,
        rungs: Sequence[VideoRung],
        *,
        picture: PictureFormat,
        report: Report,
    ) -> tuple[list[Rendition], str]:
        """One segment in each rung, and the command that made them."""

    async def audio(
        self,
        source: Path,
        rung: AudioRung,
        clock: SourceClock,
        span: SoundSpan,
        *,
        ready: Callable[[Rendition], None],
        report: Report,
    ) -> tuple[Rendition, str]:
        """The segments of a span of a sound track; `ready` gets segments as they are finished."""


class Encoder:
    """Encodes chunks and sound tracks of sources in the origin."""

    def __init__(self, objects: ObjectStore, engine: Engine) -> None:
        self._objects, self._engine = objects, engine

    async def video(
        self,
        source_key: str,
        chunk: Chunk,
        clock: SourceClock,
        codec: VideoCodec,
        rungs: Sequence[VideoRung],
        output: Output,
        *,
        picture: PictureFormat,
        report: Report,
    ) -> tuple[list[StoredRendition], str]:
        """Encodes one chunk in all rungs and stores the segments; also the command, quoted for a shell."""
        async with self._objects.file(source_key) as source:
            made, command = await self._engine.video(
                source, chunk, clock, codec, rungs, picture=picture, report=report
            )
        return [await self._store(rendition, output) for rendition in made], command

    async def audio(
        self,
        source_key: str,
        rung: AudioRung,
        clock: SourceClock,
        span: SoundSpan,
        output: Output,
        *,
        ready: Callable[[StoredRendition], None],
        report: Report,
    ) -> tuple[StoredRendition, str]:
        """Encodes a sound track; stores its segments and tells `ready` of them while the encode goes on."""
        finished: asyncio.Queue[Rendition | None] = asyncio.Queue()
        stored: list[StoredSegment] = []

        async def keep() -> None:
            while (part := await finished.get()) is not None:
                kept = await self._store(part, output)
                stored.extend(kept.segments)
                ready(kept)

        async with self._objects.file(source_key) as source, asyncio.TaskGroup() as group:
            group.create_task(keep())
            whole, command = await self._engine.audio(
                source, rung, clock, span, ready=finished.put_nowait, report=report
            )
            finished.put_nowait(None)
        init_key = await self._store_init(whole, output)
        return (
            StoredRendition(
                rendition=whole,
                init_object_key=init_key,
                init_sha256=hashlib.sha256(whole.init).digest(),
                segments=tuple(stored),
            ),
            command,
        )

    async def trial(
        self,
        source_key: str,
        excerpts: Sequence[Chunk],
        clock: SourceClock,
        sizes: Sequence[VideoRung],
        crfs: Sequence[float],
        picture: PictureFormat,
    ) -> Trial:
        """What sizes and qualities of a source come to; stores nothing."""
        async with self._objects.file(source_key) as source:
            return await try_ladder(source, excerpts, clock, sizes, crfs, picture, self._engine.scratch)

    async def video_again(
        self,
        source_key: str,
        chunk: Chunk,
        clock: SourceClock,
        codec: VideoCodec,
        rungs: Sequence[VideoRung],
        picture: PictureFormat,
    ) -> list[Rendition]:
        """Encodes one chunk and stores nothing: to see whether the same bytes come out."""
        async with self._objects.file(source_key) as source:
            made, _ = await self._engine.video(
                source, chunk, clock, codec, rungs, picture=picture, report=_unheard
            )
        return made

    async def audio_again(
        self, source_key: str, rung: AudioRung, clock: SourceClock, span: SoundSpan
    ) -> list[Rendition]:
        """Encodes sound and stores nothing."""
        async with self._objects.file(source_key) as source:
            made, _ = await self._engine.audio(
                source, rung, clock, span, ready=lambda part: None, report=_unheard
            )
        return [made]

    async def _store(self, rendition: Rendition, output: Output) -> StoredRendition:
        init_key = await self._store_init(rendition, output)
        stored = []
        for segment in rendition.segments:
            key = f"{output.prefix}/{rendition.rendition_id}/{segment.number:06d}-{output.attempt}.m4s"
            await self._objects.put(key, segment.data, sha256=segment.sha256.hex())
            stored.append(StoredSegment(object_key=key, segment=segment))
        return StoredRendition(
            rendition=rendition,
            init_object_key=init_key,
            init_sha256=hashlib.sha256(rendition.init).digest(),
            segments=tuple(stored),
        )

    async def _store_init(self, rendition: Rendition, output: Output) -> str:
        """The one init segment of the rendition: the first writes it, all others must have the same."""
        key = f"{output.prefix}/{rendition.rendition_id}/init.mp4"
        try:
            await self._objects.put(key, rendition.init)
        except AlreadyExists as error:
            raise PackagingMismatch(
                problem=f"the parameter sets of {rendition.rendition_id} differ from its other chunks"
            ) from error
        return key
