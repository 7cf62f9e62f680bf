"""A first look at a file's own lengths, without any demuxer: is it empty, a playlist, or cut off?"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from services.media.errors import SourceEmpty, SourceIsPlaylist, SourceTruncated

#: How the playlists, scripts and manifests that FFmpeg would follow begin, in lower case.
PLAYLISTS = (
    b"#extm3u",
    b"ffconcat",
    b"<?xml",
    b"<mpd",
    b"<smil",
    b"<asx",
    b"[playlist]",
    b"[reference]",
    b"[internetshortcut]",
)
#: Boxes that an MP4 or QuickTime file may begin with.
MP4_STARTS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"})
TS_SYNC, TS_PACKET_BYTES = 0x47, 188
EBML_HEADER, MATROSKA_SEGMENT = 0x1A45DFA3, 0x18538067
#: More top-level boxes than any honest file has.
MAX_BOXES = 200_000


def sniff(path: Path) -> None:
    """Raises `SourceEmpty`, `SourceIsPlaylist` or `SourceTruncated` when first bytes and lengths show it."""
    size = path.stat().st_size
    if size == 0:
        raise SourceEmpty
    with path.open("rb") as file:
        head = file.read(512)
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        if text.startswith(PLAYLISTS):
            raise SourceIsPlaylist
        if head[4:8] in MP4_STARTS:
            _check_boxes(file, size)
        elif head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
            _check_length(8 + int.from_bytes(head[4:8], "little"), size)
        elif len(head) > TS_PACKET_BYTES and head[0] == head[TS_PACKET_BYTES] == TS_SYNC:
            if size % TS_PACKET_BYTES:
                raise SourceTruncated(problem=f"it ends inside a packet of {TS_PACKET_BYTES} bytes")
        elif int.from_bytes(head[:4], "big") == EBML_HEADER:
            _check_matroska(file, size)


def _check_length(announced: int, size: int) -> None:
    if announced > size:
        raise SourceTruncated(problem=f"it announces {announced} bytes and has {size}")


def _check_boxes(file: BinaryIO, size: int) -> None:
    at, kinds = 0, set()
    for _ in range(MAX_BOXES):
        if at >= size:
            break
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            raise SourceTruncated(problem=f"it ends inside a box at {at}")
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            length = size - at
        if length < 8:
            # Trailing zeros and the like: the demuxer judges.
            break
        kinds.add(kind)
        _check_length(at + length, size)
        at += length
    if b"mdat" in kinds and not kinds & {b"moov", b"moof"}:
        raise SourceTruncated(problem="the index at its end is missing")


def _number(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """An EBML variable-length number (RFC 8794, 4); None at the end or when it means “unknown”."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value


def _check_matroska(file: BinaryIO, size: int) -> None:
    file.seek(4)
    header = _number(file, keep_marker=False)
    if header is None:
        return
    _check_length(file.tell() + header, size)
    file.seek(header, os.SEEK_CUR)
    if _number(file, keep_marker=True) != MATROSKA_SEGMENT:
        return
    length = _number(file, keep_marker=False)
    if length is not None:
        _check_length(file.tell() + length, size)
