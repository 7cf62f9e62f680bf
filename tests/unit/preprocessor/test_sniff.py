from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.media.errors import MediaError, SourceEmpty, SourceIsPlaylist, SourceTruncated
from services.preprocessor.sniff import sniff


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


MP4 = box(b"ftyp", b"isom") + box(b"moov", bytes(50)) + box(b"mdat", bytes(300))
AVI = b"RIFF" + struct.pack("<I", 304) + b"AVI " + bytes(300)
MATROSKA = bytes.fromhex("1A45DFA3 84 00000000 18538067 01000000000000FF") + bytes(255)
TRANSPORT = (b"\x47" + bytes(187)) * 20


def judged(tmp_path: Path, data: bytes) -> type[MediaError] | None:
    path = tmp_path / "source"
    path.write_bytes(data)
    try:
        sniff(path)
    except MediaError as error:
        return type(error)
    return None


@pytest.mark.parametrize("data", [MP4, AVI, MATROSKA, TRANSPORT], ids=["mp4", "avi", "matroska", "ts"])
def test_whole_files_pass_and_cut_ones_are_truncated(tmp_path: Path, data: bytes) -> None:
    assert judged(tmp_path, data) is None
    assert judged(tmp_path, data[:-40]) is SourceTruncated


def test_an_index_that_was_never_written_is_a_truncation(tmp_path: Path) -> None:
    assert judged(tmp_path, box(b"ftyp", b"isom") + box(b"mdat", bytes(300))) is SourceTruncated


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:10,\n/etc/passwd\n",
        "\ufeff#EXTM3U\n",
        "  \n#extm3u\n",
        "ffconcat version 1.0\nfile x\n",
        "<?xml version='1.0'?><MPD/>",
        "[playlist]\nFile1=/etc/passwd\n",
    ],
)
def test_playlists_are_known_whatever_they_are_called(tmp_path: Path, text: str) -> None:
    assert judged(tmp_path, text.encode()) is SourceIsPlaylist


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    assert judged(tmp_path, b"") is SourceEmpty


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=1, max_size=400),
    start=st.sampled_from([b"", b"\0\0\0\x08ftyp", b"\x1aE\xdf\xa3", b"RIFF"]),
)
@example(start=b"\x1aE\xdf\xa3", data=b"\x01" + b"\xff" * 6 + b"\xfe")
def test_any_bytes_are_judged_without_an_accident(tmp_path: Path, data: bytes, start: bytes) -> None:
    judged(tmp_path, start + data)
