from __future__ import annotations

import os

import pytest
from google.api.httpbody_pb2 import HttpBody
from hypothesis import given
from hypothesis import strategies as st

from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1 import resources_pb2 as res
from services.playback.chunks import (
    CUT_BYTES,
    FIRST_BYTES,
    SMALL_BYTES,
    STEADY_BYTES,
    Chunks,
    Ramp,
    Track,
    http_body,
    varint,
)

DATA = os.urandom(2 * CUT_BYTES + 300_000)
CHUNKS = Chunks(Track.AUDIO, 12, DATA)


@given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
def test_a_message_is_what_the_generated_code_would_write(a: int, b: int) -> None:
    start, end = sorted((a, b))
    chunk = res.MediaChunk(
        track=res.TRACK_AUDIO,
        segment_number=12,
        offset_bytes=start,
        last=end == len(DATA),
        data=DATA[start:end],
    )
    wire = b"".join(CHUNKS.message(start, end))
    assert wire == pb.PlayResponse(media=chunk).SerializeToString()
    assert wire == pb.ReadSegmentsResponse(media=chunk).SerializeToString()


@pytest.mark.parametrize("number", [-1, 0, 1, 127, 128, 999_999])
@pytest.mark.parametrize("data", [b"", b"x"])
def test_every_number_and_an_empty_object_are_written_like_generated_code(number: int, data: bytes) -> None:
    chunk = res.MediaChunk(track=res.TRACK_VIDEO, segment_number=number, last=True, data=data)
    expected = pb.PlayResponse(media=chunk).SerializeToString()
    assert b"".join(Chunks(Track.VIDEO, number, data).message(0, len(data))) == expected


def test_messages_are_sent_from_where_the_object_lies() -> None:
    _, *parts = CHUNKS.message(100, len(DATA) - 100)
    again = [part for part in CHUNKS.message(0, len(DATA)) if isinstance(part, memoryview)]
    assert [part.obj for part in parts if isinstance(part, memoryview)] == [part.obj for part in again]


@given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
def test_views_are_the_bytes_of_the_object(a: int, b: int) -> None:
    start, end = sorted((a, b))
    assert b"".join(CHUNKS.views(start, end)) == DATA[start:end]


def test_memory_counts_the_bytes_kept() -> None:
    assert CHUNKS.memory_bytes == len(DATA)


def cuts(ramp: Ramp, start: int, size_bytes: int, seconds: float = 0.0) -> list[tuple[int, int]]:
    found = []
    while start < size_bytes:
        end = ramp.cut(start, size_bytes)
        found.append((start, end))
        ramp.sent(end - start, seconds)
        start = end
    return found


@given(
    st.lists(st.integers(1, 3 * CUT_BYTES), min_size=1, max_size=6),
    st.integers(0, 3 * CUT_BYTES),
    st.sampled_from([0.0, 5.0]),
)
def test_cuts_tile_every_segment(sizes: list[int], first_start: int, seconds: float) -> None:
    ramp, start = Ramp(), min(first_start, sizes[0] - 1)
    for size_bytes in sizes:
        found = cuts(ramp, start, size_bytes, seconds)
        assert [found[0][0], *(end for _, end in found)] == [start, *(s for s, _ in found[1:]), size_bytes]
        assert all(0 < b - a <= CUT_BYTES for a, b in found)
        start = 0


def test_messages_grow_once_the_reader_has_shown_its_speed() -> None:
    ends = [end for _, end in cuts(Ramp(), 0, 3 * CUT_BYTES)]
    small = list(range(SMALL_BYTES, CUT_BYTES // 2 + 1, SMALL_BYTES))
    assert ends == [FIRST_BYTES, *small, CUT_BYTES, 2 * CUT_BYTES, 3 * CUT_BYTES]


def test_a_slow_reader_gets_smaller_messages_until_it_is_fast() -> None:
    ramp = Ramp()
    ramp.sent(2 * CUT_BYTES, 0.0)
    sizes = []
    # At the pace of 5 Mbit/s, whatever the size; then as fast as it can.
    for bytes_per_s in (625_000, 625_000, 625_000, 100 << 20, 100 << 20):
        size_bytes = ramp.cut(0, 4 * CUT_BYTES)
        sizes.append(size_bytes)
        ramp.sent(size_bytes, size_bytes / bytes_per_s)
    assert sizes == [CUT_BYTES, STEADY_BYTES, STEADY_BYTES, STEADY_BYTES, CUT_BYTES]


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_an_http_body_is_what_the_generated_code_would_write(a: bytes, b: bytes) -> None:
    expected = HttpBody(content_type="video/mp4", data=a + b).SerializeToString()
    assert b"".join(http_body("video/mp4", [memoryview(a), memoryview(b)])) == expected


def test_a_varint_has_seven_bits_a_byte() -> None:
    assert [varint(value) for value in (0, 127, 128, 300)] == [b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02"]
