"""How near segments come to the source: one fragment in the middle of each, in all rungs by one process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from services.encoder.command import quality_command
from services.encoder.model import Chunk, Metric, Quality, Rendition, SourceClock, VideoRung
from services.media import sandbox
from services.media.errors import MediaError
from services.media.pictures import PictureFormat
from services.runtime.logs import logger

_log = logger("encoder")
_SSIM = re.compile(r"All:([0-9.]+)")


def _middle(chunk: Chunk, made: Sequence[Rendition]) -> tuple[int, Chunk]:
    """The fragment measured, by its place, and its frames; all rungs have the same ones."""
    counts = [fragment.sample_count for fragment in made[0].segments[0].fragments]
    place = len(counts) // 2
    start = sum(counts[:place])
    return place, chunk.part(start, start + counts[place])


def read_quality(path: Path, metric: Metric) -> Quality:
    """What a log of `quality_command` says."""
    if metric is Metric.VMAF:
        pooled = json.loads(path.read_text())["pooled_metrics"]["vmaf"]
        return Quality(metric=metric, mean=round(pooled["mean"], 3), least=round(pooled["min"], 3))
    values = [float(value) for value in _SSIM.findall(path.read_text())]
    return Quality(metric=metric, mean=round(fmean(values), 5), least=min(values))


async def measured(
    source: Path,
    folder: Path,
    chunk: Chunk,
    clock: SourceClock,
    rungs: Sequence[VideoRung],
    picture: PictureFormat,
    made: Sequence[Rendition],
    report: Callable[[float], None],
) -> list[Rendition]:
    """The renditions with the quality of their segment: by VMAF, else by SSIM, else unmeasured.

    A segment is as good as its frames, which were checked; that it could not be measured loses none.
    """
    place, part = _middle(chunk, made)
    for index, rendition in enumerate(made):
        fragment = rendition.segments[0].fragments[place]
        media = rendition.segments[0].data[fragment.offset : fragment.offset + fragment.size_bytes]
        (folder / f"{index}.part").write_bytes(rendition.init + media)
    for metric in Metric:
        argv = quality_command(part, clock, rungs, picture, metric)
        command = sandbox.Command(argv=argv, source=source, scratch=folder)
        try:
            await sandbox.run(command, sandbox.FrameCounter(part.frame_count, report).feed)
            found = [read_quality(folder / f"{index}.log", metric) for index in range(len(rungs))]
        except (MediaError, OSError, ValueError, KeyError) as error:
            _log.warning("quality not measured", metric=metric.value, chunk=chunk.number, problem=str(error))
            continue
        return [
            replace(rendition, segments=(replace(rendition.segments[0], quality=quality),))
            for rendition, quality in zip(made, found, strict=True)
        ]
    return list(made)
