"""Chunks that are sought without a run-up: the same bytes, whatever the source's key frames."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import VideoCodec, VideoRung
from services.media.testfilm import FilmSpec, make_film
from services.preprocessor.model import PlannedChunk
from services.preprocessor.probe import probe
from tests.support.encoding import chunk_of, clock_of, transform

SPEC = FilmSpec(seconds=Fraction(6), width=320, height=180, cuts=(2.5,), loud=(4.0, 5.0))
RUNG = VideoRung(rendition_id="h264-180", width=320, height=180, crf=25, max_bits_per_second=400_000)
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "3", "-g", "30", "-keyint_min", "30"]
CLOSED = [*H264, "-x264-params", "open-gop=0:scenecut=0"]
OPEN = [*H264, "-b_strategy", "0", "-x264-params", "open-gop=1:scenecut=0:bframes=3:b-adapt=0"]
#: On a key frame, beside it on either side, and far from one.
STARTS = (29, 30, 31, 58, 60, 75)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("closed.mp4", CLOSED),
        ("none-reordered.mov", [*CLOSED, "-bf", "0"]),
        ("late.mp4", [*CLOSED, "-output_ts_offset", "3"]),
        ("without-sound.mp4", [*CLOSED, "-an"]),
        (
            "hevc.mp4",
            ["-c:v", "libx265", "-x265-params", "keyint=30:min-keyint=30:open-gop=0:log-level=error"],
        ),
    ],
)
async def test_chunks_have_the_same_bytes_with_a_run_up_and_without(
    film: Path, tmp_path: Path, name: str, options: list[str]
) -> None:
    source = transform(film, tmp_path / name, [], options)
    found = await probe(source)
    clock, engine = clock_of(found), FfmpegEngine()
    assert clock.exact_seeks
    for number, start in enumerate(STARTS):
        at, end = (found.timeline.pts(frame) for frame in (start, start + 8))
        planned = PlannedChunk(
            number=number,
            start_frame=start,
            frame_count=8,
            start_ticks=at,
            duration_ticks=end - at,
            starts_on_shot_change=False,
        )
        chunk = chunk_of(found, planned)
        exact, far = [
            await engine.video(source, chunk, one, VideoCodec.H264, [RUNG])
            for one in (clock, replace(clock, exact_seeks=False))
        ]
        assert exact[1] != far[1]
        assert exact[0] == far[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("open.mp4", OPEN),
        ("closed.mkv", CLOSED),
        ("closed.ts", CLOSED),
        ("one-key-frame.mp4", [*CLOSED, "-g", "900", "-keyint_min", "900"]),
    ],
)
async def test_others_take_a_run_up(film: Path, tmp_path: Path, name: str, options: list[str]) -> None:
    found = await probe(transform(film, tmp_path / name, [], options))
    assert not found.report.video.exact_seeks
