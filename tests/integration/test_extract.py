from __future__ import annotations

import asyncio
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from services.media.testfilm import FilmSpec, Plane, make_film, read_frame_number
from services.preprocessor.extract import COLUMNS, ROWS, Extracted, extract
from services.preprocessor.model import Probe, TreatmentKind
from services.preprocessor.probe import probe
from services.preprocessor.webvtt import Cue, parse
from tests.support.encoding import transform

SPEC = FilmSpec(seconds=Fraction(12), width=640, height=360, cuts=(), loud=None)
SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> there

2
00:00:04,250 --> 00:00:05,000
Zwei Zeilen
für dich
"""
CHAPTERS = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1000
START=0
END=5000
title=Opening
[CHAPTER]
TIMEBASE=1/1000
START=5000
END=99000
title=The rest
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


def source_of(film: Path, folder: Path, name: str, *last: str) -> Path:
    (folder / "one.srt").write_text(SRT)
    (folder / "chapters.txt").write_text(CHAPTERS)
    inputs = ["-i", str(folder / "one.srt"), "-i", str(folder / "chapters.txt")]
    text = "mov_text" if name.endswith("mp4") else "ass"
    maps = ["-map", "0:v", "-map", "0:a", "-map", "1", "-map", "1", "-map_chapters", "2", "-c:v", "copy"]
    codecs = ["-c:a", "copy", "-c:s:0", text, "-c:s:1", "mov_text" if text == "mov_text" else "srt"]
    tags = ["-metadata:s:s:0", "language=eng", "-metadata:s:s:1", "language=deu"]
    return transform(film, folder / name, [], [*inputs, *maps, *codecs, *tags, *last])


def taken(source: Path) -> tuple[Probe, Extracted]:
    async def run() -> tuple[Probe, Extracted]:
        found = await probe(source)
        return found, await extract(source, found.report)

    return asyncio.run(run())


@pytest.mark.parametrize(("name", "last"), [("film.mp4", ()), ("film.mkv", ("-output_ts_offset", "7"))])
def test_text_tracks_become_webvtt_on_the_titles_time_axis(
    film: Path, tmp_path: Path, name: str, last: tuple[str, ...]
) -> None:
    _, found = taken(source_of(film, tmp_path, name, *last))
    assert [(text.track_id, text.source.language) for text in found.texts] == [
        ("vtt-en-0", "en"),
        ("vtt-de-1", "de"),
    ]
    for text in found.texts:
        one, two = parse(text.data.decode())
        assert "Hello" in one.text
        assert two == Cue(start_ms=4250, end_ms=5000, text="Zwei Zeilen\nfür dich", settings=two.settings)
        assert (one.start_ms, one.end_ms) == (1000, 2500)


def test_a_text_track_of_absurd_size_is_left_out_and_the_film_is_not(film: Path, tmp_path: Path) -> None:
    cues = [f"{n + 1}\n00:00:01,{n:03} --> 00:00:02,{n:03}\n{'x' * 60_000}\n\n" for n in range(700)]
    (tmp_path / "huge.srt").write_text("".join(cues))
    inputs = ["-i", str(tmp_path / "huge.srt"), "-map", "0:v", "-map", "1", "-c", "copy"]
    _, found = taken(transform(film, tmp_path / "film.mkv", [], inputs))
    assert found.texts == ()
    assert [(one.kind, one.stream_index) for one in found.left_out] == [(TreatmentKind.DROP_TRACK, 1)]
    assert found.left_out[0].reason == (
        "Text track 1 (und) is left out: it needs more than 33554432 bytes in one file."
    )
    assert len(found.sheets) == found.board.sheet_count


def test_chapters_are_kept_and_cut_to_the_title(film: Path, tmp_path: Path) -> None:
    report = taken(source_of(film, tmp_path, "film.mkv"))[0].report
    assert [(c.start_ns, c.name) for c in report.chapters] == [(0, "Opening"), (5 * 10**9, "The rest")]
    assert report.chapters[-1].end_ns == report.duration_ns


def tiles(found: Extracted) -> list[Plane]:
    board, made = found.board, []
    for sheet in found.sheets:
        with av.open(io.BytesIO(sheet), "r", format="mjpeg") as picture:
            whole: Plane = next(picture.decode(video=0)).to_ndarray(format="gray").astype(np.uint8)
        assert whole.shape == (ROWS * board.tile_height, COLUMNS * board.tile_width)
        for row in range(ROWS):
            for column in range(COLUMNS):
                top, left = row * board.tile_height, column * board.tile_width
                made.append(whole[top : top + board.tile_height, left : left + board.tile_width])
    return made[: board.tile_count]


@pytest.mark.parametrize(
    ("keys", "often"),
    [
        ("keyint=15:bframes=0", True),
        ("keyint=15:bframes=3:b-adapt=0", True),
        # Key frames can't be decoded alone: the pictures that lead them in are shown before them.
        ("keyint=15:bframes=3:b-adapt=0:open-gop=1", False),
        ("keyint=9999:bframes=0", False),
    ],
)
def test_small_pictures_show_the_moments_they_stand_for(
    film: Path, tmp_path: Path, keys: str, often: bool
) -> None:
    coded = ["-c:v", "libx264", "-crf", "16", "-x264-params", f"{keys}:scenecut=0"]
    source = transform(film, tmp_path / "keys.mp4", [], ["-an", *coded])
    _, found = taken(source)
    shown = [read_frame_number(tile) for tile in tiles(found)]
    film_line = SPEC.timeline
    exact = [film_line.frame_at_ticks(second * film_line.timescale) for second in range(12)]
    wanted = [frame // 15 * 15 for frame in exact] if often else exact
    assert shown == wanted
