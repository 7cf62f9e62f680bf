"""The engine: runs the encoder's commands shut in and packages what they make."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.encoder.command import PROGRESSIVE, audio_command, video_command
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
from services.encoder.package import AudioPackager, package_video
from services.encoder.quality import measured
from services.media import sandbox
from services.media.errors import PackagingMismatch
from services.media.pictures import PictureFormat
from services.media.scratch import Scratch

#: An encoded chunk may be so many times as large as its cap says, and a little more: a cap is no promise.
OVER_CAP, LEAST_ENCODED_BYTES = 4, 16 << 20
#: The longest time without a new frame: key frames may lie so far apart that thousands are decoded before.
STALL_S = 110
#: How much of the progress the encode is where quality is measured after it.
ENCODE_SHARE = 0.8
#: How far beyond its end sound is encoded where it goes on: many times what any encoder looks ahead.
GOES_ON_SECONDS = 1
ENCODE_LIMITS = sandbox.Limits(stall_s=STALL_S)


def most_encoded_bytes(chunk: Chunk, rungs: Sequence[VideoRung]) -> int:
    """The largest that the file of any rung may become."""
    seconds = chunk.duration_ticks / chunk.timescale
    cap = max(rung.max_bits_per_second for rung in rungs)
    return int(OVER_CAP * cap * seconds / 8) + LEAST_ENCODED_BYTES


def _unheard(share: float) -> None:
    """The report that nobody wants."""


@dataclass(frozen=True, kw_only=True)
class FfmpegEngine:
    """Encodes with FFmpeg in the sandbox; see `usecases.Engine`.

    Leaves no file behind, also when cancelled. Raises the errors of `sandbox.run`, and `PackagingMismatch`
    when what came out is not exactly what was asked for.
    """

    scratch: Scratch = field(default_factory=Scratch)
    limits: sandbox.Limits = ENCODE_LIMITS
    #: Whether the quality of pictures is measured.
    measure: bool = False

    async def video(
        self,
        source: Path,
        chunk: Chunk,
        clock: SourceClock,
        codec: VideoCodec,
        rungs: Sequence[VideoRung],
        *,
        picture: PictureFormat = PROGRESSIVE,
        report: Callable[[float], None] = _unheard,
    ) -> tuple[list[Rendition], str]:
        """One segment in each rung, and the command that made them, quoted for a shell."""
        argv = video_command(chunk, clock, codec, rungs, picture=picture)
        largest = most_encoded_bytes(chunk, rungs)
        limits = replace(self.limits, file_bytes=largest)
        # To measure quality takes copies of parts.
        async with self.scratch.folder("encode", 2 * len(rungs) * largest) as folder:
            command = sandbox.Command(argv=argv, source=source, scratch=folder, limits=limits)
            encoding = ENCODE_SHARE if self.measure else 1.0
            counter = sandbox.FrameCounter(chunk.frame_count, lambda share: report(encoding * share))
            await sandbox.run(command, counter.feed)
            made = await asyncio.to_thread(_package_all, folder, chunk, codec, rungs)
            if self.measure:
                made = await measured(
                    source,
                    folder,
                    chunk,
                    clock,
                    rungs,
                    picture,
                    made,
                    lambda share: report(encoding + (1 - encoding) * share),
                )
        return made, command.shell()

    async def audio(
        self,
        source: Path,
        rung: AudioRung,
        clock: SourceClock,
        span: SoundSpan,
        *,
        ready: Callable[[Rendition], None],
        report: Callable[[float], None] = _unheard,
    ) -> tuple[Rendition, str]:
        """The segments of `span` of a sound track, which is encoded from its start.

        `ready` gets segments as soon as they are whole, as a rendition that holds only the new ones; the
        result holds all of them.
        """
        # What an encoder makes depends a little on what follows: a second more gives the bytes of the whole.
        seconds = span.end + (GOES_ON_SECONDS if span.goes_on else 0)
        total = math.ceil(seconds * rung.sample_rate_hz)
        packager = AudioPackager(rung, span)
        everything: list[Segment] = []

        def feed(piece: bytes) -> bool:
            publish(packager.feed(piece))
            report(min(packager.done_samples / total, 1.0))
            return True

        def publish(segments: list[Segment]) -> None:
            if segments:
                everything.extend(segments)
                ready(packager.rendition(segments))

        # Sound comes through a pipe; nothing is written.
        limits = replace(self.limits, file_bytes=0)
        async with self.scratch.folder("encode", 0) as folder:
            argv = audio_command(rung, clock, total)
            command = sandbox.Command(argv=argv, source=source, scratch=folder, limits=limits)
            await sandbox.run(command, feed)
        publish(packager.finish())
        return packager.rendition(everything), command.shell()


def _package_all(
    folder: Path, chunk: Chunk, codec: VideoCodec, rungs: Sequence[VideoRung]
) -> list[Rendition]:
    made = []
    for index, rung in enumerate(rungs):
        path = folder / f"{index}.mp4"
        if not path.exists() or path.stat().st_size == 0:
            raise PackagingMismatch(problem=f"the encoder wrote nothing for chunk {chunk.number}")
        made.append(package_video(chunk, codec, rung.rendition_id, path.read_bytes()))
    return made
