from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import (
    AudioCodec,
    AudioRung,
    Chunk,
    Rendition,
    SoundSpan,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.media import cmaf
from services.media.containers import run_up_seconds
from services.media.sandbox import ffmpeg
from services.media.testfilm import FilmSpec, find_flashes, make_film
from services.preprocessor.analyze import analyze
from services.preprocessor.model import PlannedChunk, Probe
from services.preprocessor.plan import plan_chunks, plan_windows
from services.preprocessor.probe import probe
from tests.support.decoding import decode_beeps, decode_pictures

SPEC = FilmSpec(seconds=Fraction(13), width=640, height=360, cuts=(5.4, 9.7), loud=None)
COPY = ["-c", "copy"]
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2"]
#: What is done to the film, and the first frame that is still shown.
VARIANTS: dict[str, tuple[list[str], str, int]] = {
    "matroska counts milliseconds": (COPY, "mkv", 0),
    "transport stream has no index": (COPY, "ts", 0),
    "flash video": (COPY, "flv", 0),
    "fragmented": ([*COPY, "-movflags", "frag_keyframe+empty_moov"], "mp4", 0),
    "VP9 in webm": (
        ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"],
        "webm",
        0,
    ),
    "ten-bit HEVC": (
        ["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-c:a", "copy"],
        "mp4",
        0,
    ),
    "frames of differing length": (
        ["-vf", "select='gt(mod(n,7),0)'", "-fps_mode", "vfr", *X264, "-c:a", "copy"],
        "mp4",
        1,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Finished:
    probe: Probe
    chunks: list[PlannedChunk]
    parts: list[Rendition]
    sound: Rendition


def transform(film: Path, out: Path, before: list[str], after: list[str]) -> Path:
    subprocess.run(
        [ffmpeg(), "-loglevel", "error", "-y", *before, "-i", str(film), *after, str(out)], check=True
    )
    return out


def clock_of(found: Probe) -> SourceClock:
    video = found.report.video
    return SourceClock(
        stream_index=video.stream_index,
        time_base=video.time_base,
        first_pts=video.first_pts,
        container_start_us=video.container_start_us,
        frame_rate=video.frame_rate,
        run_up_seconds=run_up_seconds(found.report.container),
    )


def chunk_of(found: Probe, planned: PlannedChunk) -> Chunk:
    line = found.timeline
    first = planned.start_frame
    return Chunk(
        number=planned.number,
        start_ticks=planned.start_ticks,
        timescale=line.timescale,
        runs=line.part(first, first + planned.frame_count),
        previous_frame_ticks=line.pts(first) - line.pts(first - 1) if first else 0,
        decode_delay_ticks=found.report.video.decode_delay_ticks,
    )


async def whole_path(source: Path) -> Finished:
    engine = FfmpegEngine()
    found = await probe(source)
    chunks: list[PlannedChunk] = []
    for window in plan_windows(found.timeline):
        seen = await analyze(source, found.report, found.timeline, window)
        chunks += plan_chunks(found.timeline, window, seen.shot_change_frames, len(chunks))
    rung = VideoRung(rendition_id="h264-360", width=640, height=360, crf=20, max_bits_per_second=3_000_000)
    clock = clock_of(found)
    parts = []
    for planned in chunks:
        made, _ = await engine.video(source, chunk_of(found, planned), clock, VideoCodec.H264, [rung])
        parts += made
    stream = found.report.audios[0].stream_index
    heard = AudioRung(
        rendition_id="aac-128-und-0", stream_index=stream, codec=AudioCodec.AAC, bits_per_second=128_000
    )
    span = SoundSpan(
        starts=tuple(Fraction(planned.start_ticks, found.timeline.timescale) for planned in chunks),
        end=Fraction(found.timeline.duration_ticks, found.timeline.timescale),
    )
    sound, _ = await engine.audio(source, heard, clock, span, ready=lambda part: None)
    return Finished(probe=found, chunks=chunks, parts=parts, sound=sound)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


def check(done: Finished, expected_numbers: list[int]) -> None:
    """Every frame is there at its tick from any chunk on, and sound agrees with pictures."""
    line = done.probe.timeline
    init = cmaf.combined_init([done.parts[0].init, done.sound.init])
    assert len({part.init for part in done.parts}) == 1
    for first in (0, 1):
        stream = init
        for part, heard in zip(done.parts[first:], done.sound.segments[first:], strict=True):
            stream += part.segments[0].data + heard.data
        seen = decode_pictures(stream)
        start = done.chunks[first].start_frame
        assert seen.numbers == expected_numbers[start:]
        assert seen.pts == list(line.all_pts())[start:]
        flashes = [seen.pts[index] / line.timescale for index in find_flashes(seen.levels)]
        beeps = decode_beeps(stream)
        assert len(flashes) >= 5
        assert max(min(abs(beep - flash) for beep in beeps) for flash in flashes) < 0.010


@pytest.mark.parametrize("name", list(VARIANTS))
def test_any_container_gives_every_frame_at_its_tick_and_sound_in_step(
    film: Path, tmp_path: Path, name: str
) -> None:
    after, suffix, first = VARIANTS[name]
    source = transform(film, tmp_path / f"source.{suffix}", [], after)
    done = asyncio.run(whole_path(source))
    if first:
        numbers = [number for number in range(SPEC.timeline.frame_count) if number % 7]
    else:
        numbers = list(range(SPEC.timeline.frame_count))
    check(done, numbers)


def test_an_edit_list_that_begins_inside_a_group_hides_what_comes_before(film: Path, tmp_path: Path) -> None:
    source = transform(film, tmp_path / "source.mp4", ["-ss", "2.2"], COPY)
    done = asyncio.run(whole_path(source))
    start = SPEC.timeline.frame_count - done.probe.timeline.frame_count
    assert 64 <= start <= 67
    check(done, list(range(start, SPEC.timeline.frame_count)))


@pytest.mark.parametrize("late", ["v", "a"])
def test_a_track_that_starts_late_keeps_its_place_against_the_other(
    film: Path, tmp_path: Path, late: str
) -> None:
    other = "a" if late == "v" else "v"
    shift = ["-itsoffset", "0.7", "-i", str(film), "-map", f"0:{other}", "-map", f"1:{late}", *COPY]
    source = transform(film, tmp_path / "source.mp4", [], shift)
    done = asyncio.run(whole_path(source))
    offset = 0.7 if late == "a" else -0.7
    stream = cmaf.combined_init([done.parts[0].init, done.sound.init])
    for part, heard in zip(done.parts, done.sound.segments, strict=True):
        stream += part.segments[0].data + heard.data
    line = SPEC.timeline
    expected = [line.pts(frame) / line.timescale + offset for frame in SPEC.second_frames]
    # The whole beeps: the first may be cut by the picture's start, the last by its end.
    whole = [at for at in expected if at >= 0 and at < line.duration_ticks / line.timescale - 0.1]
    beeps = [at for at in decode_beeps(stream) if at > 0.01]
    assert len(beeps) == len([at for at in whole if at > 0.01])
    assert (
        max(abs(beep - at) for beep, at in zip(beeps, [at for at in whole if at > 0.01], strict=True)) < 0.010
    )


def test_a_picture_filmed_upright_is_turned_upright(film: Path, tmp_path: Path) -> None:
    source = transform(film, tmp_path / "source.mp4", ["-display_rotation", "90"], COPY)
    found = asyncio.run(probe(source)).report.video
    assert (found.width, found.height) == (640, 360)
    assert (found.display_width, found.display_height, found.rotation_degrees) == (360, 640, 270)
