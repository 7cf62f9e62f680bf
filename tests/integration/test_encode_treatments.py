"""What real sources are like: each is taken through the whole path, and every picture that comes out read."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import pytest

from services.media.testfilm import FilmSpec, make_film
from services.preprocessor.model import TreatmentKind
from services.preprocessor.probe import probe
from tests.support.decoding import decode_beeps, decode_pictures
from tests.support.encoding import Finished, transform, whole_path

SPEC = FilmSpec(seconds=Fraction(9), width=320, height=180, cuts=(5.4,), loud=None)
COPY = ["-c", "copy"]
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "copy"]
ALL = list(range(SPEC.timeline.frame_count))
#: PQ in BT.2020, made of BT.709 with its white at 100 cd/m².
TO_PQ = (
    "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,zscale=t=linear:npl=100,format=gbrpf32le,"
    "zscale=p=2020:t=smpte2084:m=2020_ncl:r=tv:npl=100,format=yuv420p10le"
)
PQ_TAGS = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited:log-level=error"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


def process(film: Path, out: Path, after: list[str], width: int = 320, height: int = 180) -> Finished:
    return asyncio.run(whole_path(transform(film, out, [], after), width, height))


def kinds(done: Finished) -> set[TreatmentKind]:
    return {treatment.kind for treatment in done.probe.report.treatments}


def check_pictures(done: Finished, numbers: list[int]) -> None:
    """The source's pictures, `numbers`, are each shown from their tick on, from any chunk on."""
    line = done.probe.timeline
    begins = [frame for frame in range(line.frame_count) if line.picture_frame(frame) == frame]
    of_frame = dict(zip(begins, numbers, strict=True))
    expected = [of_frame[line.picture_frame(frame)] for frame in range(line.frame_count)]
    assert len({part.init for part in done.parts}) == 1
    for first, chunk in enumerate(done.chunks):
        seen = decode_pictures(done.stream(first))
        assert seen.pts == list(line.all_pts())[chunk.start_frame :]
        assert seen.numbers == expected[chunk.start_frame :]


def test_a_picture_that_stands_for_long_is_held_over_chunks(film: Path, tmp_path: Path) -> None:
    kept = ["-vf", "select='lt(n,30)+gt(n,100)',setpts='PTS+gt(N,29)*13/TB'"]
    done = process(film, tmp_path / "still.mp4", [*kept, "-fps_mode", "vfr", *X264])
    assert TreatmentKind.HOLD_PICTURE in kinds(done)
    assert done.probe.timeline.duration_ticks > 21 * done.probe.timeline.timescale
    assert all(part.segments[0].duration_ticks <= 10 * part.timescale for part in done.parts)
    check_pictures(done, [*range(30), *range(101, len(ALL))])


def test_a_single_picture_with_sound_becomes_a_film_as_long_as_the_sound(film: Path, tmp_path: Path) -> None:
    done = process(film, tmp_path / "one.mkv", ["-vf", "select='eq(n,7)'", "-fps_mode", "vfr", *X264])
    assert TreatmentKind.EXTEND_PICTURE in kinds(done)
    check_pictures(done, [7])
    assert len([at for at in decode_beeps(done.stream()) if at > 0.01]) >= 8


def test_sound_that_is_longer_than_the_picture_is_kept_and_the_last_picture_held(
    film: Path, tmp_path: Path
) -> None:
    done = process(film, tmp_path / "short.mp4", ["-vf", "trim=end_frame=100", *X264])
    assert TreatmentKind.EXTEND_PICTURE in kinds(done)
    assert done.probe.timeline.constant_rate is None
    check_pictures(done, list(range(100)))
    assert len(decode_beeps(done.stream())) == len(SPEC.second_frames)


def test_sound_that_ends_early_is_followed_by_silence(film: Path, tmp_path: Path) -> None:
    done = process(film, tmp_path / "quiet.mp4", ["-af", "atrim=end=4.5", "-c:v", "copy"])
    assert TreatmentKind.PAD_SOUND in kinds(done)
    check_pictures(done, ALL)
    assert len(decode_beeps(done.stream())) == 5


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_key_frames_far_apart_cost_time_but_no_frame(film: Path, tmp_path: Path, suffix: str) -> None:
    done = process(film, tmp_path / f"long.{suffix}", ["-g", "9999", "-sc_threshold", "0", *X264])
    assert done.probe.report.video.longest_key_distance_s > 8
    check_pictures(done, ALL)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("late.ts", ["-output_ts_offset", "100", *COPY]),
        ("negative.mov", ["-output_ts_offset", "-1.5", "-avoid_negative_ts", "disabled", *COPY]),
        ("late.mkv", ["-output_ts_offset", "7", *COPY]),
    ],
)
def test_first_time_stamps_may_be_anything(film: Path, tmp_path: Path, name: str, after: list[str]) -> None:
    done = process(film, tmp_path / name, after)
    first = SPEC.timeline.frame_count - done.probe.timeline.frame_count
    check_pictures(done, ALL[first:])


def test_a_turned_picture_comes_out_upright(film: Path, tmp_path: Path) -> None:
    turned = transform(film, tmp_path / "turned.mp4", [], ["-vf", "transpose=clock", *X264])
    source = transform(turned, tmp_path / "source.mp4", ["-display_rotation", "90"], COPY)
    done = asyncio.run(whole_path(source, 320, 180))
    video = done.probe.report.video
    assert (video.width, video.display_width, video.rotation_degrees) == (180, 320, 270)
    assert TreatmentKind.ROTATE in kinds(done)
    check_pictures(done, ALL)


def test_interlaced_pictures_are_made_whole_without_losing_one(film: Path, tmp_path: Path) -> None:
    fields = ["-vf", "setfield=tff", "-x264-params", "tff=1", "-flags", "+ildct+ilme"]
    done = process(film, tmp_path / "fields.mp4", [*fields, *X264])
    assert done.probe.report.video.interlaced
    assert TreatmentKind.DEINTERLACE in kinds(done)
    check_pictures(done, ALL)


def test_odd_sizes_and_oblong_pixels_become_even_and_square(film: Path, tmp_path: Path) -> None:
    odd = ["-vf", "scale=321:181,setsar=4/3", "-pix_fmt", "yuv444p10le"]
    done = process(film, tmp_path / "odd.mp4", [*odd, *X264], 428, 182)
    video = done.probe.report.video
    assert (video.width, video.height, video.display_width, video.display_height) == (321, 181, 428, 181)
    assert {TreatmentKind.SQUARE_PIXELS, TreatmentKind.SCALE, TreatmentKind.CONVERT_SAMPLES} <= kinds(done)
    check_pictures(done, ALL)


def test_high_dynamic_range_is_mapped_to_what_every_screen_shows(film: Path, tmp_path: Path) -> None:
    coded = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", PQ_TAGS, "-c:a", "copy"]
    done = process(film, tmp_path / "pq.mp4", ["-vf", TO_PQ, *coded])
    assert done.probe.report.video.high_dynamic_range
    assert {TreatmentKind.TONE_MAP, TreatmentKind.CONVERT_SAMPLES} <= kinds(done)
    check_pictures(done, ALL)
    plain = decode_pictures(film.read_bytes())
    mapped = decode_pictures(done.stream())
    assert max(mapped.levels) > 0.6 * max(plain.levels)


def test_a_source_without_sound_is_a_film_without_sound(film: Path, tmp_path: Path) -> None:
    done = process(film, tmp_path / "silent.mp4", ["-an", *COPY])
    assert (done.sounds, TreatmentKind.NO_SOUND in kinds(done)) == ([], True)
    check_pictures(done, ALL)


def test_every_sound_track_becomes_one_of_its_own(film: Path, tmp_path: Path) -> None:
    graph = ["-filter_complex", "[0:a]adelay=500:all=1,pan=5.1|FC=c0[b]"]
    tracks = ["-map", "0:v", "-map", "0:a", "-map", "[b]", "-c:v", "copy", "-c:a:0", "copy", "-c:a:1", "aac"]
    tags = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu"]
    done = process(film, tmp_path / "two.mkv", [*graph, *tracks, *tags])
    assert [audio.language for audio in done.probe.report.audios] == ["en", "de"]
    assert TreatmentKind.DOWNMIX in kinds(done)
    one, other = (decode_beeps(done.stream(sound=number)) for number in (0, 1))
    gaps = [later - earlier for earlier, later in zip(one, other, strict=False)]
    assert max(abs(gap - 0.5) for gap in gaps[1:-1]) < 0.010


def test_the_report_says_in_words_what_will_be_done(film: Path, tmp_path: Path) -> None:
    source = transform(film, tmp_path / "short.mp4", [], ["-vf", "trim=end_frame=100", *X264])
    found = asyncio.run(probe(source)).report
    [extended] = [one for one in found.treatments if one.kind is TreatmentKind.EXTEND_PICTURE]
    assert extended.reason == "Sound goes on for 5.6 s after the last picture, which is held."
