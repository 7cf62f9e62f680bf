from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import (
    AudioCodec,
    AudioRung,
    Chunk,
    Metric,
    Rendition,
    SoundSpan,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.media import cmaf
from services.media.errors import EncoderStalled, PackagingMismatch
from services.media.sandbox import Limits
from services.media.scratch import Scratch
from services.media.testfilm import FilmSpec, find_flashes, make_film
from services.media.time import Timeline
from tests.support.decoding import decode_beeps, decode_pictures

ENGINE = FfmpegEngine()
SPEC = FilmSpec(seconds=Fraction(12), width=640, height=360, cuts=(5.4, 9.7), loud=None)
FILM = SPEC.timeline
CLOCK = SourceClock(
    stream_index=0,
    time_base=Fraction(1, 30000),
    first_pts=0,
    container_start_us=0,
    frame_rate=Fraction(30000, 1001),
)
#: The last lies just before an open group of pictures of the source, whose key frame a seek would land on.
CUTS = [0, 161, 269, FILM.frame_count]
RUNGS = {
    codec: [
        VideoRung(rendition_id=f"{codec}-360", width=640, height=360, crf=crf, max_bits_per_second=1_000_000),
        VideoRung(rendition_id=f"{codec}-240", width=426, height=240, crf=crf, max_bits_per_second=500_000),
    ]
    for codec, crf in ((VideoCodec.H264, 23), (VideoCodec.AV1, 35), (VideoCodec.HEVC, 26))
}


def chunk(number: int, film: Timeline = FILM) -> Chunk:
    start, stop = CUTS[number], CUTS[number + 1]
    return Chunk(
        number=number,
        start_ticks=film.pts(start),
        timescale=film.timescale,
        runs=film.part(start, stop),
        previous_frame_ticks=film.pts(start) - film.pts(start - 1) if start else 0,
        decode_delay_ticks=film.reorder_ticks(2),
    )


@dataclass(frozen=True, kw_only=True)
class Encoded:
    pictures: dict[str, list[Rendition]]
    sounds: dict[AudioCodec, Rendition]
    #: Segment numbers of sound in the order they were told of while the encode went on.
    told: dict[AudioCodec, list[int]]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


def sound_rung(codec: AudioCodec) -> AudioRung:
    return AudioRung(rendition_id=f"{codec}-128-und-0", stream_index=1, codec=codec, bits_per_second=128_000)


GRID = tuple(Fraction(FILM.pts(cut), FILM.timescale) for cut in CUTS)
WHOLE = SoundSpan(starts=GRID[:-1], end=GRID[-1])


async def encode_sound(film: Path, codec: AudioCodec, span: SoundSpan = WHOLE) -> tuple[Rendition, list[int]]:
    told: list[int] = []
    made, _ = await ENGINE.audio(
        film,
        sound_rung(codec),
        CLOCK,
        span,
        ready=lambda part: told.extend(segment.number for segment in part.segments),
    )
    return made, told


async def encode_everything(film: Path) -> Encoded:
    pictures: dict[str, list[Rendition]] = {}
    for codec, rungs in RUNGS.items():
        for number in range(len(CUTS) - 1):
            made, _ = await ENGINE.video(film, chunk(number), CLOCK, codec, rungs)
            for rendition in made:
                pictures.setdefault(rendition.rendition_id, []).append(rendition)
    sounds, told = {}, {}
    for heard in AudioCodec:
        sounds[heard], told[heard] = await encode_sound(film, heard)
    return Encoded(pictures=pictures, sounds=sounds, told=told)


@pytest.fixture(scope="module")
def encoded(film: Path) -> Encoded:
    return asyncio.run(encode_everything(film))


@pytest.fixture(params=[f"{codec}-{height}" for codec in VideoCodec for height in (360, 240)])
def parts(request: pytest.FixtureRequest, encoded: Encoded) -> list[Rendition]:
    return encoded.pictures[request.param]


def test_chunks_joined_decode_to_every_frame_at_its_exact_tick(parts: list[Rendition]) -> None:
    stream = parts[0].init + b"".join(part.segments[0].data for part in parts)
    seen = decode_pictures(stream)
    assert seen.numbers == list(range(FILM.frame_count))
    assert seen.pts == list(FILM.all_pts())


def test_all_chunks_of_a_rendition_share_one_init_segment(parts: list[Rendition]) -> None:
    assert {(part.init, part.codecs, part.media_time) for part in parts} == {
        (parts[0].init, parts[0].codecs, parts[0].media_time)
    }


@pytest.mark.parametrize("codec", list(VideoCodec))
def test_chunks_share_their_init_segment_whatever_their_quality(
    film: Path, encoded: Encoded, codec: VideoCodec
) -> None:
    better = [replace(rung, crf=rung.crf - 9) for rung in RUNGS[codec]]
    made, _ = asyncio.run(ENGINE.video(film, chunk(2), CLOCK, codec, better))
    for rendition in made:
        usual = encoded.pictures[rendition.rendition_id][2]
        assert rendition.init == usual.init
        assert len(rendition.segments[0].data) > len(usual.segments[0].data)


def test_quality_is_measured_by_vmaf_and_falls_with_the_bits(film: Path) -> None:
    engine = FfmpegEngine(measure=True)
    poor = [replace(rung, crf=rung.crf + 20) for rung in RUNGS[VideoCodec.H264]]
    good, _ = asyncio.run(engine.video(film, chunk(1), CLOCK, VideoCodec.H264, RUNGS[VideoCodec.H264]))
    bad, _ = asyncio.run(engine.video(film, chunk(1), CLOCK, VideoCodec.H264, poor))
    for better, worse in zip(good, bad, strict=True):
        one, other = better.segments[0].quality, worse.segments[0].quality
        assert one is not None
        assert other is not None
        assert one.metric is other.metric is Metric.VMAF
        assert one.mean > 85
        # Every frame that is compared is compared with itself.
        assert one.least > one.mean - 15
        assert other.mean < one.mean - 10
        assert 0 <= one.least <= one.mean


def test_decoding_may_start_at_any_fragment_and_shows_the_right_frame(parts: list[Rendition]) -> None:
    expected, seen = [], []
    for part in parts:
        for fragment in part.segments[0].fragments:
            stream = part.init + part.segments[0].data[fragment.offset :]
            first = decode_pictures(stream)
            seen.append((first.pts[0], first.numbers[0]))
            expected.append((fragment.tfdt_ticks, FILM.frame_at_ticks(fragment.tfdt_ticks)))
    assert seen == expected


def test_trimming_from_a_fragment_leads_to_the_frame_of_an_offset(encoded: Encoded) -> None:
    offset_ns = 7_400_000_000
    wanted = FILM.frame_at(offset_ns)
    part = encoded.pictures["h264-240"][1]
    fragments = [f for f in part.segments[0].fragments if f.tfdt_ticks <= FILM.pts(wanted)]
    stream = part.init + part.segments[0].data[fragments[-1].offset :]
    seen = decode_pictures(stream)
    trim = FILM.pts(wanted) - fragments[-1].tfdt_ticks
    kept = [number for number, at in zip(seen.numbers, seen.pts, strict=True) if at >= seen.pts[0] + trim]
    assert kept[0] == wanted == int(Fraction(74, 10) * SPEC.fps)


def test_fragments_tile_the_segment_and_begin_with_sync_samples_two_seconds_apart(
    parts: list[Rendition],
) -> None:
    for part in parts:
        segment = part.segments[0]
        ends = [fragment.offset + fragment.size_bytes for fragment in segment.fragments]
        assert [fragment.offset for fragment in segment.fragments] == [0, *ends[:-1]]
        assert ends[-1] == len(segment.data)
        assert all(fragment.sync for fragment in segment.fragments)
        assert all(fragment.duration_ticks <= 2 * part.timescale for fragment in segment.fragments)


@pytest.mark.parametrize("codec", list(AudioCodec))
@pytest.mark.parametrize("first", [0, 1, 2])
def test_beep_and_flash_agree_within_ten_milliseconds_from_any_segment(
    encoded: Encoded, codec: AudioCodec, first: int
) -> None:
    sound, parts = encoded.sounds[codec], encoded.pictures["h264-240"]
    stream = cmaf.combined_init([parts[0].init, sound.init])
    for part, heard in zip(parts[first:], sound.segments[first:], strict=True):
        stream += part.segments[0].data + heard.data
    seen = decode_pictures(stream)
    flashes = [seen.pts[index] / FILM.timescale for index in find_flashes(seen.levels)]
    beeps = decode_beeps(stream)
    assert [FILM.frame_at_ticks(round(at * FILM.timescale)) for at in flashes] == [
        frame for frame in SPEC.second_frames if frame >= CUTS[first]
    ]
    # A beep that began before the start may be heard by its end.
    beeps = [at for at in beeps if at > flashes[0] - 0.02]
    assert len(beeps) == len(flashes)
    assert max(abs(beep - flash) for beep, flash in zip(beeps, flashes, strict=True)) < 0.010


@pytest.mark.parametrize("codec", list(AudioCodec))
def test_sound_is_cut_at_the_floor_of_the_grid_without_a_gap(encoded: Encoded, codec: AudioCodec) -> None:
    sound = encoded.sounds[codec]
    unit = 1024 if codec is AudioCodec.AAC else 960
    for segment, cut in zip(sound.segments[1:], CUTS[1:], strict=False):
        late = Fraction(FILM.pts(cut) * 48_000, FILM.timescale) - segment.start_ticks
        assert 0 <= late < unit
    for one, following in pairwise(sound.segments):
        assert one.start_ticks + one.duration_ticks == following.start_ticks


@pytest.mark.parametrize("codec", list(AudioCodec))
def test_sound_tells_of_each_segment_once_in_order(encoded: Encoded, codec: AudioCodec) -> None:
    assert encoded.told[codec] == [0, 1, 2]


def test_codec_strings_say_what_players_need(encoded: Encoded) -> None:
    said = {name: parts[0].codecs for name, parts in encoded.pictures.items()}
    said |= {codec.value: sound.codecs for codec, sound in encoded.sounds.items()}
    assert said == {
        "h264-360": "avc1.64001e",
        "h264-240": "avc1.640015",
        "av1-360": "av01.0.01M.08",
        "av1-240": "av01.0.00M.08",
        "hevc-360": "hvc1.1.6.L63.90",
        "hevc-240": "hvc1.1.6.L60.90",
        "aac": "mp4a.40.2",
        "opus": "opus",
    }


@pytest.mark.parametrize("codec", list(VideoCodec))
def test_the_same_chunk_gives_the_same_bytes(film: Path, encoded: Encoded, codec: VideoCodec) -> None:
    again, _ = asyncio.run(ENGINE.video(film, chunk(2), CLOCK, codec, RUNGS[codec]))
    assert again == [encoded.pictures[f"{codec}-{height}"][2] for height in (360, 240)]


@pytest.mark.parametrize("codec", list(AudioCodec))
def test_the_same_sound_gives_the_same_bytes(film: Path, encoded: Encoded, codec: AudioCodec) -> None:
    again, _ = asyncio.run(encode_sound(film, codec))
    assert again == encoded.sounds[codec]


@pytest.mark.parametrize("codec", list(AudioCodec))
def test_sound_made_piece_by_piece_as_the_grid_grows_has_the_bytes_of_the_whole(
    film: Path, encoded: Encoded, codec: AudioCodec
) -> None:
    opening = SoundSpan(starts=GRID[:1], end=GRID[1], goes_on=True)
    rest = SoundSpan(starts=GRID[:-1], end=GRID[-1], first_segment=1)
    first, _ = asyncio.run(encode_sound(film, codec, opening))
    second, told = asyncio.run(encode_sound(film, codec, rest))
    whole = encoded.sounds[codec]
    assert first.init == second.init == whole.init
    assert [*first.segments, *second.segments] == list(whole.segments)
    assert told == [1, 2]


def test_progress_rises_to_the_whole_and_scratch_is_left_empty(film: Path, tmp_path: Path) -> None:
    heard: list[float] = []
    asyncio.run(
        FfmpegEngine(scratch=Scratch(tmp_path)).video(
            film, chunk(2), CLOCK, VideoCodec.H264, RUNGS[VideoCodec.H264], report=heard.append
        )
    )
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert list(tmp_path.iterdir()) == []


def test_cancelling_ends_the_encode_and_leaves_nothing(film: Path, tmp_path: Path) -> None:
    async def cancelled() -> bool:
        def stop(share: float) -> None:
            task.cancel()

        task = asyncio.ensure_future(
            FfmpegEngine(scratch=Scratch(tmp_path)).video(
                film,
                chunk(0),
                CLOCK,
                VideoCodec.H264,
                RUNGS[VideoCodec.H264],
                report=stop,
            )
        )
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())
    assert list(tmp_path.iterdir()) == []


def test_an_encode_that_makes_no_progress_is_ended_with_its_reason(film: Path, tmp_path: Path) -> None:
    engine = FfmpegEngine(scratch=Scratch(tmp_path), limits=Limits(stall_s=0.001))
    with pytest.raises(EncoderStalled):
        asyncio.run(engine.video(film, chunk(0), CLOCK, VideoCodec.H264, RUNGS[VideoCodec.H264]))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_differs_from_the_source_is_refused(film: Path) -> None:
    wrong = SourceClock(
        stream_index=0,
        time_base=Fraction(1, 30000),
        first_pts=1001,
        container_start_us=0,
        frame_rate=Fraction(30000, 1001),
    )
    with pytest.raises(PackagingMismatch):
        asyncio.run(ENGINE.video(film, chunk(0), wrong, VideoCodec.H264, RUNGS[VideoCodec.H264]))
