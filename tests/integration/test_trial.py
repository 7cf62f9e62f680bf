from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

from services.encoder.model import VideoRung
from services.encoder.trial import try_ladder
from services.media.pictures import PictureFormat
from services.media.testfilm import FilmSpec, make_film
from services.preprocessor.model import PlannedChunk, TrialPoint
from services.preprocessor.pertitle import choose_rungs
from services.preprocessor.probe import probe
from tests.support.encoding import chunk_of, clock_of

SPEC = FilmSpec(seconds=Fraction(6), width=640, height=360, cuts=(), loud=None)
SIZES = [
    VideoRung(rendition_id=f"h264-{high}", width=wide, height=high, crf=23, max_bits_per_second=1)
    for wide, high in ((640, 360), (426, 240))
]


async def tried(film: Path) -> tuple[list[TrialPoint], str]:
    await make_film(film, SPEC)
    found = await probe(film)
    line, excerpts = found.timeline, []
    for start in (20, 100):
        planned = PlannedChunk(
            number=0,
            start_frame=start,
            frame_count=12,
            start_ticks=line.pts(start),
            duration_ticks=line.pts(start + 12) - line.pts(start),
            starts_on_shot_change=False,
        )
        excerpts.append(chunk_of(found, planned))
    trial = await try_ladder(film, excerpts, clock_of(found), SIZES, [20.0, 32.0], PictureFormat())
    points = [
        TrialPoint(
            rendition_id=point.rendition_id,
            crf=point.crf,
            bits_per_second=point.bits_per_second,
            vmaf=point.vmaf,
        )
        for point in trial.points
    ]
    return points, trial.problem


def test_a_trial_measures_every_size_at_every_quality_as_it_is_seen(tmp_path: Path) -> None:
    points, problem = asyncio.run(tried(tmp_path / "film.mp4"))
    assert problem == ""
    found = {(point.rendition_id, point.crf): point for point in points}
    assert set(found) == {(size.rendition_id, crf) for size in SIZES for crf in (20.0, 32.0)}
    for size in SIZES:
        fine, coarse = found[size.rendition_id, 20.0], found[size.rendition_id, 32.0]
        assert fine.vmaf > coarse.vmaf
        assert fine.bits_per_second > coarse.bits_per_second
    # Seen at 360 lines, 240 lines have lost detail.
    assert found["h264-240", 20.0].vmaf < found["h264-360", 20.0].vmaf - 3
    assert choose_rungs(points, [size.rendition_id for size in SIZES])[0].rendition_id == "h264-360"


def test_a_trial_that_fails_says_so_instead_of_failing_the_title(tmp_path: Path) -> None:
    async def run() -> str:
        await make_film(tmp_path / "film.mp4", SPEC)
        found = await probe(tmp_path / "film.mp4")
        line = found.timeline
        planned = PlannedChunk(
            number=0,
            start_frame=20,
            frame_count=12,
            start_ticks=line.pts(20) + 1,
            duration_ticks=line.pts(12),
            starts_on_shot_change=False,
        )
        trial = await try_ladder(
            tmp_path / "film.mp4",
            [chunk_of(found, planned)],
            clock_of(found),
            SIZES,
            [20.0, 32.0],
            PictureFormat(),
        )
        assert trial.points == ()
        return trial.problem

    assert asyncio.run(run()).startswith("VMAF could not be measured (The encoder's output differs")
