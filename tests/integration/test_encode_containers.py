from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import pytest

from services.media.testfilm import FilmSpec, find_flashes, make_film
from services.preprocessor.probe import probe
from tests.support.decoding import decode_beeps, decode_pictures
from tests.support.encoding import Finished, transform, whole_path

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


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


def check(done: Finished, expected_numbers: list[int]) -> None:
    """Every frame is there at its tick from any chunk on, and sound agrees with pictures."""
    line = done.probe.timeline
    assert len({part.init for part in done.parts}) == 1
    for first in (0, 1):
        stream = done.stream(first)
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
    done = asyncio.run(whole_path(source, 640, 360))
    if first:
        numbers = [number for number in range(SPEC.timeline.frame_count) if number % 7]
    else:
        numbers = list(range(SPEC.timeline.frame_count))
    check(done, numbers)


def test_an_edit_list_that_begins_inside_a_group_hides_what_comes_before(film: Path, tmp_path: Path) -> None:
    source = transform(film, tmp_path / "source.mp4", ["-ss", "2.2"], COPY)
    done = asyncio.run(whole_path(source, 640, 360))
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
    done = asyncio.run(whole_path(source, 640, 360))
    offset = 0.7 if late == "a" else -0.7
    stream = done.stream()
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
