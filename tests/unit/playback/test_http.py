from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.playback.http import answer, text_answer

SIZE = 1000


def told(**request: str) -> tuple[str, str, str, int, int]:
    """Status, content-range, content-length, start and end."""
    headers = {key.replace("_", "-"): value for key, value in request.items()}
    reply = answer(headers, size_bytes=SIZE, etag="abc", cache_control="private")
    got = dict(reply.headers)
    return (
        got.get("x-http-status", "200"),
        got.get("content-range", ""),
        got.get("x-http-content-length", ""),
        reply.start,
        reply.end,
    )


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ("200", "", "1000", 0, 1000)),
        ("bytes=0-", ("206", "bytes 0-999/1000", "1000", 0, 1000)),
        ("bytes=0-0", ("206", "bytes 0-0/1000", "1", 0, 1)),
        ("bytes=10-19", ("206", "bytes 10-19/1000", "10", 10, 20)),
        ("bytes=990-5000", ("206", "bytes 990-999/1000", "10", 990, 1000)),
        ("bytes=-100", ("206", "bytes 900-999/1000", "100", 900, 1000)),
        ("bytes=-5000", ("206", "bytes 0-999/1000", "1000", 0, 1000)),
        ("bytes=1000-", ("416", "bytes */1000", "0", 0, 0)),
        ("bytes=-0", ("416", "bytes */1000", "0", 0, 0)),
        # Malformed, of another unit, or of several ranges: ignored, as if it were not there (RFC 9110, 14.2).
        ("bytes=20-10", ("200", "", "1000", 0, 1000)),
        ("bytes=-", ("200", "", "1000", 0, 1000)),
        ("bytes=0-1,5-6", ("200", "", "1000", 0, 1000)),
        ("lines=0-1", ("200", "", "1000", 0, 1000)),
        ("bytes=" + "9" * 5000 + "-", ("200", "", "1000", 0, 1000)),
    ],
)
def test_ranges_are_honoured_refused_or_ignored(
    header: str, expected: tuple[str, str, str, int, int]
) -> None:
    assert told(range=header) == expected


def test_a_known_content_is_not_sent_again_whatever_the_range() -> None:
    assert told(if_none_match='"x", W/"abc"', range="bytes=0-1") == ("304", "", "", 0, 0)
    assert told(if_none_match='"x"') == ("200", "", "1000", 0, 1000)


def test_a_range_of_another_content_is_answered_whole() -> None:
    assert told(range="bytes=0-1", if_range='"old"') == ("200", "", "1000", 0, 1000)
    assert told(range="bytes=0-1", if_range='"abc"') == ("206", "bytes 0-1/1000", "2", 0, 2)


def test_head_tells_the_length_and_sends_nothing() -> None:
    assert told(x_envoy_original_method="HEAD") == ("200", "", "1000", 0, 0)


@given(st.text(max_size=30))
def test_no_range_header_breaks_the_answer(text: str) -> None:
    status, _, _, start, end = told(range=f"bytes={text}")
    assert status in ("200", "206", "416")
    assert 0 <= start <= end <= SIZE


TEXT = b"#EXTINF:5.005,\n" * 200


def sent(text: bytes = TEXT, **request: str) -> tuple[str, str, bytes]:
    """Encoding, tag and body."""
    headers = {key.replace("_", "-"): value for key, value in request.items()}
    headers = {"x-envoy-original-method": "GET", **headers}
    reply, data = text_answer(headers, text, etag="abc", cache_control="private")
    got = dict(reply.headers)
    assert (got["vary"], got["x-http-content-length"]) == ("accept-encoding", str(reply.end - reply.start))
    return got.get("content-encoding", ""), got["etag"], data[reply.start : reply.end]


def test_a_text_is_compressed_for_a_reader_that_takes_it_whole() -> None:
    coding, etag, body = sent(accept_encoding="gzip, deflate, br")
    assert (coding, etag, gzip.decompress(body)) == ("gzip", '"abc-gzip"', TEXT)
    assert len(body) < len(TEXT) / 10


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "identity"])
def test_a_text_stays_plain_for_a_reader_that_takes_no_gzip(accepted: str) -> None:
    assert sent(accept_encoding=accepted) == ("", '"abc"', TEXT)


def test_a_part_of_a_text_and_a_small_one_stay_plain() -> None:
    assert sent(accept_encoding="gzip", range="bytes=1-3") == ("", '"abc"', TEXT[1:4])
    assert sent(TEXT[:100], accept_encoding="gzip") == ("", '"abc"', TEXT[:100])


def test_a_message_to_a_browser_that_calls_by_grpc_is_not_compressed() -> None:
    asked = {"accept-encoding": "gzip, deflate, br", "x-grpc-web": "1"}
    reply, data = text_answer(asked, TEXT, etag="abc", cache_control="private")
    assert data == TEXT
    assert "content-encoding" not in dict(reply.headers)
