"""Trial encodes: what sizes and qualities of a title come to, in bits and in VMAF at the largest size."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from services.encoder.command import quality_command, video_command
from services.encoder.model import Chunk, Metric, SourceClock, VideoCodec, VideoRung
from services.encoder.package import package_video
from services.encoder.quality import read_quality
from services.media import sandbox
from services.media.errors import MediaError
from services.media.pictures import PictureFormat
from services.media.scratch import Scratch

#: A second in the largest size and best quality, many times over.
LIMITS = sandbox.Limits(file_bytes=32 << 20)
#: No cap: the lines between points are those of the CRF alone.
UNCAPPED_BITS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one size and quality came to over all excerpts."""

    rendition_id: str
    crf: float
    bits_per_second: int
    vmaf: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """All points, or why there are none."""

    points: tuple[Point, ...]
    problem: str
    commands: tuple[str, ...]


async def _excerpt(
    source: Path,
    excerpt: Chunk,
    clock: SourceClock,
    rungs: Sequence[VideoRung],
    picture: PictureFormat,
    scratch: Scratch,
) -> tuple[list[tuple[int, float]], list[str]]:
    """Size in bytes and VMAF of an excerpt in every rung, and the commands."""
    commands: list[str] = []
    async with scratch.folder("trial", 2 * len(rungs) * LIMITS.file_bytes) as folder:

        async def run(argv: list[str]) -> None:
            command = sandbox.Command(argv=argv, source=source, scratch=folder, limits=LIMITS)
            commands.append(command.shell())
            await sandbox.run(command, sandbox.FrameCounter(excerpt.frame_count, lambda share: None).feed)

        await run(video_command(excerpt, clock, VideoCodec.H264, rungs, picture=picture))
        sizes = await asyncio.to_thread(_package, folder, excerpt, rungs)
        argv = quality_command(excerpt, clock, rungs, picture, Metric.VMAF, shown_at=rungs[0])
        await run(argv)
        found = [read_quality(folder / f"{index}.log", Metric.VMAF).mean for index in range(len(rungs))]
        return list(zip(sizes, found, strict=True)), commands


def _package(folder: Path, excerpt: Chunk, rungs: Sequence[VideoRung]) -> list[int]:
    sizes = []
    for index, rung in enumerate(rungs):
        encoded = (folder / f"{index}.mp4").read_bytes()
        made = package_video(excerpt, VideoCodec.H264, rung.rendition_id, encoded)
        (folder / f"{index}.part").write_bytes(made.init + made.segments[0].data)
        sizes.append(len(made.segments[0].data))
    return sizes


async def try_ladder(
    source: Path,
    excerpts: Sequence[Chunk],
    clock: SourceClock,
    sizes: Sequence[VideoRung],
    crfs: Sequence[float],
    picture: PictureFormat,
    scratch: Scratch | None = None,
) -> Trial:
    """Every size at every CRF over all excerpts; a trial that fails says so instead of failing the title."""
    rungs = [replace(size, crf=crf, max_bits_per_second=UNCAPPED_BITS) for size in sizes for crf in crfs]
    seen: list[list[tuple[int, float]]] = []
    commands: list[str] = []
    for excerpt in excerpts:
        try:
            found, ran = await _excerpt(source, excerpt, clock, rungs, picture, scratch or Scratch())
        except (MediaError, OSError, ValueError, KeyError) as error:
            problem = f"VMAF could not be measured ({error})"
            return Trial(points=(), problem=problem, commands=tuple(commands))
        seen.append(found)
        commands += ran
    seconds = sum(excerpt.duration_ticks / excerpt.timescale for excerpt in excerpts)
    points = [
        Point(
            rendition_id=rung.rendition_id,
            crf=rung.crf,
            bits_per_second=max(round(8 * sum(one[index][0] for one in seen) / seconds), 1),
            vmaf=round(fmean(one[index][1] for one in seen), 3),
        )
        for index, rung in enumerate(rungs)
    ]
    return Trial(points=tuple(points), problem="", commands=tuple(commands))
