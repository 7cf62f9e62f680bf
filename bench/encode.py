"""Encoding in chunks against one plain FFmpeg process that makes the same ladder, on real footage.

Both make the same H.264 rungs with the same settings and key frames at most two seconds apart, in turns
(A B A B). Processor seconds are compared: they say what a farm pays, whoever else is on the machine.
The per-title ladder is compared with Apple's in `encode_apple`, the whole suite measured in `encode_suite`.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import encode_apple, encode_shaka, encode_suite
from bench.encode_clips import CLIPS, Cpu, Prepared, joined, prepared, run_plain, rungs_of
from bench.report import Report, Row, conditions
from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import VideoCodec, VideoRung
from services.encoder.package import package_video
from services.encoder.trial import try_ladder
from services.preprocessor.ladder import plan_ladder
from services.runtime.claims import temporary
from services.scheduler.trials import TRIAL_CRFS

ROUNDS = 2
#: Bits double for about six points of VMAF: how differences of quality are turned into bits.
_BITS_PER_VMAF = math.log(2) / 6
#: The simulated film is this many times as long as all clips together.
_FILM_TIMES = 40


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a part is asked for."""

    folder: Path
    rounds: int
    quick: bool

    async def films(self) -> list[Prepared]:
        """All clips."""
        return [await prepared(clip, self.folder, self.quick) for clip in CLIPS]


#: Rows, and the conditions they hold under.
Found = tuple[list[Row], Mapping[str, object]]


@dataclass(kw_only=True)
class Measured:
    """One clip; processor seconds, the lists by round."""

    plain_s: list[float] = field(default_factory=list)
    chunks_s: list[float] = field(default_factory=list)
    parent_s: list[float] = field(default_factory=list)
    #: Of each chunk.
    tasks_s: list[float] = field(default_factory=list)
    analysis_s: float
    quality_s: float = 0.0
    trial_s: float = 0.0
    duration_s: float
    #: Bytes over those of the plain process, by rung, at the quality of the plain process.
    bytes_ratios: list[float] = field(default_factory=list)
    vmaf_differences: list[float] = field(default_factory=list)


def run(rounds: int = ROUNDS, *, parts: Sequence[str] = (), quick: bool = False) -> Report:
    """Measure all clips; `rounds` by turns. Only some `parts`; `quick`: of seconds of each clip."""
    with temporary("bench") as name:
        return asyncio.run(_report(Path(name), rounds, parts or list(PARTS), quick))


async def _report(folder: Path, rounds: int, parts: Sequence[str], quick: bool) -> Report:
    stated = conditions(rounds=rounds, clips=[clip.name for clip in CLIPS], quick=quick)
    rows = list[Row]()
    for part in parts:
        own = folder / part
        own.mkdir()
        found, more = await PARTS[part](Plan(folder=own, rounds=rounds, quick=quick))
        rows += found
        stated |= {**more, f"{part}_load_after": round(os.getloadavg()[0], 2)}
    return Report(bench="encode", rows=rows, conditions=stated)


async def _chunks_part(plan: Plan) -> Found:
    found = []
    for film in await plan.films():
        found.append(await _measure(film, plan.rounds))
        print(f"{film.name}: {found[-1]}", file=sys.stderr)
    return _rows(found), {
        "chunks": "H.264 (x264 fast) in the fixed ladder's sizes; the plain process has one thread for each",
        "equal_quality": "VMAF at each rung's size; six points count as a doubling of the bits",
        "default": "analysis, quality of one fragment a segment, and the trial as for a film of two hours",
        "simulation": "list scheduling of the measured chunks, repeated; no waiting for the source",
    }


async def _apple_part(plan: Plan) -> Found:
    seen = {film.name: await encode_apple.compare(film) for film in await plan.films()}
    found = [one for one in seen.values() if one]
    without = [name for name, one in seen.items() if one is None or one.h264 is None]
    return list(encode_apple.rows(found)), {
        "apple": "x264 fast at Apple's mean rates, one pass, one process; VMAF at the source's size; "
        "mean distance of the logarithms of bytes over the VMAF that both reach",
        "apple_by_clip": {one.name: {"h264": one.h264, "av1": one.av1} for one in found},
        "apple_left_out": without,
        "apple_av1": "AV1 in every rung of the per-title ladder; the default makes one of them",
    }


async def _suite_part(plan: Plan) -> Found:
    return await encode_suite.fixed_ladder(plan.folder, plan.rounds, plan.quick), {
        "suite": "without quality and AV1, nobody watches; the services' process holds the scheduler and all "
        "others; what analyses and makes small pictures beside counts in the wall time only",
        "suite_peer": "the plain process with all threads that FFmpeg and x264 take, as nice as the encoders",
    }


async def _playable_part(plan: Plan) -> Found:
    return await encode_suite.playable(plan.folder, plan.quick), {
        "playable": "default configuration, 2 workers; films of two minutes and more are tried first; the "
        "chunk is the opening's first, in all rungs, its quality measured",
    }


async def _shaka_part(plan: Plan) -> Found:
    return await encode_shaka.measure(plan.folder, plan.rounds, plan.quick), {
        "shaka": "Shaka Streamer takes mean rates, those that our rungs come to, and the preset slow; once "
        "more with fast, ours. All processes of the suite count, analysis and small pictures too",
    }


#: What can be asked for alone.
PARTS: Mapping[str, Callable[[Plan], Awaitable[Found]]] = {
    "chunks": _chunks_part,
    "suite": _suite_part,
    "playable": _playable_part,
    "apple": _apple_part,
    "shaka": _shaka_part,
}


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


async def _measure(film: Prepared, rounds: int) -> Measured:
    result = Measured(analysis_s=film.analysis_s, duration_s=film.duration_s)
    rungs = rungs_of(plan_ladder(film.found.report, ("h264",)))[VideoCodec.H264]
    plain, ours = list[bytes](), list[bytes]()
    for _ in range(rounds):
        plain = await _plain(film, rungs, result)
        ours = await _chunked(film, rungs, result)
    theirs, own = [await film.vmaf(rungs, streams) for streams in (plain, ours)]
    for a, b, before, after in zip(plain, ours, theirs, own, strict=True):
        result.vmaf_differences.append(after - before)
        result.bytes_ratios.append(len(b) / len(a) * math.exp((before - after) * _BITS_PER_VMAF))
    await _extras(film, rungs, result)
    return result


async def _plain(film: Prepared, rungs: Sequence[VideoRung], result: Measured) -> list[bytes]:
    """The whole clip by one FFmpeg that nothing shields or checks; the bytes of each rung."""
    cpu = Cpu()
    made = await run_plain(film.plain_command(rungs), len(rungs))
    result.plain_s.append(cpu.children_s)
    return joined(
        [
            [
                package_video(film.whole, VideoCodec.H264, rung.rendition_id, data)
                for rung, data in zip(rungs, made, strict=True)
            ]
        ]
    )


async def _chunked(film: Prepared, rungs: Sequence[VideoRung], result: Measured) -> list[bytes]:
    """The clip chunk by chunk as workers do it; the joined bytes of each rung."""
    engine, whole, parts = FfmpegEngine(), Cpu(), []
    tasks = []
    for chunk in film.chunks:
        cpu = Cpu()
        parts.append(await film.encode(engine, chunk, rungs, VideoCodec.H264))
        tasks.append(cpu.all_s)
    result.chunks_s.append(whole.children_s)
    result.parent_s.append(whole.own_s)
    result.tasks_s = tasks
    return joined(parts)


async def _extras(film: Prepared, rungs: Sequence[VideoRung], result: Measured) -> None:
    """What the default configuration adds: quality, as the difference to the encodes alone, and the trial."""
    cpu, engine = Cpu(), FfmpegEngine(measure=True)
    for chunk in film.chunks:
        await film.encode(engine, chunk, rungs, VideoCodec.H264)
    encodes = median(result.chunks_s) + median(result.parent_s)
    result.quality_s = max(cpu.all_s - encodes, 0.0)
    cpu = Cpu()
    await try_ladder(film.path, film.excerpts, film.clock, rungs, TRIAL_CRFS, film.picture)
    result.trial_s = cpu.all_s
