from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.media import bmff, cmaf
from services.media.cmaf import Fragment, Sample
from services.media.errors import MalformedMedia


def encoder_init(track_id: int = 1, *, entry: bytes = b"", elst: int = 0) -> bytes:
    """An init segment as an encoder writes it, bit rates and names included."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    mvhd = bmff.make_full(
        b"mvhd", 0, 0, struct.pack(">IIII", 0, 0, 30000, 0), bytes(16), matrix, bytes(24), b"\0\0\0\2"
    )
    tkhd = bmff.make_full(
        b"tkhd", 0, 3, struct.pack(">IIIII", 0, 0, track_id, 0, 0), bytes(16), matrix, bytes(8)
    )
    edits = bmff.make_full(b"elst", 0, 0, struct.pack(">IIiHH", 1, 0, elst, 1, 0))
    mdhd = bmff.make_full(b"mdhd", 0, 0, struct.pack(">IIIII", 0, 0, 30000, 0, 0))
    stsd = bmff.make_full(b"stsd", 0, 0, struct.pack(">I", 1), entry or avc())
    media = bmff.make(b"mdia", mdhd, bmff.make(b"minf", bmff.make(b"stbl", stsd)))
    trak = bmff.make(b"trak", tkhd, bmff.make(b"edts", edits), media)
    trex = bmff.make_full(b"trex", 0, 0, struct.pack(">IIIII", track_id, 1, 0, 0, 0))
    udta = bmff.make(b"udta", b"Lavf 61")
    return bmff.make(b"ftyp", b"iso5") + bmff.make(b"moov", mvhd, trak, bmff.make(b"mvex", trex), udta)


def avc(bit_rate: int = 7) -> bytes:
    config = bmff.make(b"avcC", bytes([1, 0x64, 0, 0x1F]), b"parameter sets")
    rates = bmff.make(b"btrt", struct.pack(">III", 0, bit_rate, bit_rate))
    return bmff.make(b"avc1", bytes(78), config, rates)


samples = st.lists(
    st.builds(
        Sample,
        duration_ticks=st.integers(1, 1 << 20),
        composition_ticks=st.integers(0, 1 << 20),
        sync=st.just(False),
        payload=st.binary(max_size=50),
    ),
    min_size=1,
    max_size=30,
).map(lambda made: [replace(made[0], sync=True), *made[1:]])


@given(samples, st.integers(0, 1 << 40), st.integers(1, 1 << 31))
def test_a_fragment_is_read_back_as_it_was_written(made: list[Sample], tfdt: int, sequence: int) -> None:
    written = cmaf.write_fragment(track_id=2, sequence=sequence, tfdt_ticks=tfdt, samples=made)
    [read] = cmaf.parse_fragments(written, encoder_init())
    assert read == cmaf.RawFragment(sequence=sequence, track_id=2, tfdt_ticks=tfdt, samples=tuple(made))


@given(st.lists(samples, min_size=1, max_size=5))
def test_the_index_of_a_segment_tiles_it(parts: list[list[Sample]]) -> None:
    written = [
        cmaf.write_fragment(track_id=1, sequence=n + 1, tfdt_ticks=n, samples=part)
        for n, part in enumerate(parts)
    ]
    index = cmaf.index_fragments(b"".join(written), encoder_init())
    expected, offset = [], 0
    for number, (part, raw) in enumerate(zip(parts, written, strict=True)):
        expected.append(
            Fragment(
                offset=offset,
                size_bytes=len(raw),
                tfdt_ticks=number,
                duration_ticks=sum(sample.duration_ticks for sample in part),
                sample_count=len(part),
                sync=True,
            )
        )
        offset += len(raw)
    assert list(index) == expected


def test_a_sync_sample_inside_a_fragment_is_refused() -> None:
    one = Sample(duration_ticks=1, composition_ticks=0, sync=True, payload=b"a")
    other = replace(one, sync=False)
    with pytest.raises(ValueError, match="may only open"):
        cmaf.write_fragment(track_id=1, sequence=1, tfdt_ticks=0, samples=[one, other, one])


def test_init_segments_do_not_depend_on_what_was_measured_or_who_wrote_them() -> None:
    inits = {
        cmaf.write_init(encoder_init(entry=avc(rate), elst=elst), track_id=1, media_time=2002)
        for rate, elst in ((7, 0), (9, 1001))
    }
    [init] = inits
    assert b"Lavf" not in init
    assert b"btrt" not in init
    assert bmff.media_time_of(init, cmaf.only_track(init)) == 2002
    assert cmaf.codec_string(init) == "avc1.64001f"


def test_without_a_delay_there_is_no_edit_list() -> None:
    assert b"elst" not in cmaf.write_init(encoder_init(elst=7), track_id=1, media_time=0)


def test_tracks_are_combined_into_one_init_segment_with_their_own_numbers() -> None:
    video = cmaf.write_init(encoder_init(), track_id=1, media_time=2002)
    audio = cmaf.write_init(encoder_init(), track_id=2, media_time=1024)
    both = cmaf.combined_init([video, audio])
    moov = bmff.find(both, b"moov")
    traks = bmff.children(both, moov, b"trak")
    assert [cmaf.track_id_of(both, trak) for trak in traks] == [1, 2]
    assert [bmff.media_time_of(both, trak) for trak in traks] == [2002, 1024]
    assert len(bmff.children(both, bmff.find(both, b"mvex", within=moov), b"trex")) == 2
    mvhd = bmff.find(both, b"mvhd", within=moov)
    assert both[mvhd.end - 4 : mvhd.end] == b"\0\0\0\3"


def test_tracks_of_one_number_are_not_combined() -> None:
    init = cmaf.write_init(encoder_init(), track_id=1, media_time=0)
    with pytest.raises(MalformedMedia):
        cmaf.combined_init([init, init])


@given(st.binary(max_size=200))
def test_any_bytes_either_parse_or_are_malformed(data: bytes) -> None:
    try:
        cmaf.parse_fragments(data, encoder_init())
    except MalformedMedia:
        return
    assert sum(box.size for box in bmff.boxes(data)) == len(data)


@given(samples, st.data())
def test_damaged_fragments_are_refused_or_read_never_crash(made: list[Sample], data: st.DataObject) -> None:
    written = bytearray(cmaf.write_fragment(track_id=1, sequence=1, tfdt_ticks=0, samples=made))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(written)))
    with suppress(MalformedMedia):
        cmaf.index_fragments(bytes(written[:cut]), encoder_init())


def test_a_box_that_says_more_than_there_is_is_malformed() -> None:
    with pytest.raises(MalformedMedia):
        list(bmff.boxes(struct.pack(">I4s", 100, b"moof")))


def test_a_box_of_size_zero_goes_to_the_end_and_large_sizes_are_read() -> None:
    rest = struct.pack(">I4s", 0, b"mdat") + b"abc"
    large = struct.pack(">I4sQ", 1, b"free", 20) + b"abcd"
    assert [(box.kind, box.body, box.size) for box in bmff.boxes(large + rest)] == [
        (b"free", 16, 20),
        (b"mdat", 28, 11),
    ]
