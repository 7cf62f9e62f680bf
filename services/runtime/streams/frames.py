"""The few parts of HTTP/2 (RFC 9113) that are handled once for each frame of media."""

from __future__ import annotations

import struct
from collections import deque

#: RFC 9113, 4.1: length (3 bytes), type, flags, stream.
_HEADER = struct.Struct(">BHBBL")
HEADER_BYTES = 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Largest frame that a peer may send us; the smallest that the standard allows to demand.
MAX_FRAME_BYTES = 16_384
#: RFC 9113, 6.9.1.
MAX_WINDOW = 2**31 - 1
_DATA, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x7, 0x8
#: Less than this isn't worth a frame of its own.
_SHORT_BYTES = 1024


class FrameTooLarge(Exception):
    """The peer sent a frame above `MAX_FRAME_BYTES`: FRAME_SIZE_ERROR."""


class Splitter:
    """Takes the window updates out of what a peer sends; they are most of it while media goes out."""

    def __init__(self) -> None:
        self._rest = b""
        self._preface = True

    def feed(self, data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
        """All other frames, whole, and the updates as (stream, increment). Raises `FrameTooLarge`."""
        data, at = self._rest + data, 0
        others, updates = bytearray(), list[tuple[int, int]]()
        if self._preface:
            if len(data) < len(PREFACE) and PREFACE.startswith(data):
                self._rest = data
                return b"", updates
            others += data[: len(PREFACE)]
            self._preface, at = False, len(PREFACE)
        while len(data) - at >= HEADER_BYTES:
            high, low, kind, _, stream = _HEADER.unpack_from(data, at)
            size = (high << 16) + low
            if size > MAX_FRAME_BYTES:
                raise FrameTooLarge
            end = at + HEADER_BYTES + size
            if end > len(data):
                break
            if kind == _WINDOW_UPDATE and size == 4:
                increment = int.from_bytes(data[end - 4 : end], "big") & MAX_WINDOW
                updates.append((stream & MAX_WINDOW, increment))
            elif kind != _GOAWAY:  # a client's says only that we may push nothing, which we never do
                others += data[at:end]
            at = end
        self._rest = data[at:]
        return bytes(others), updates


def data_frames(stream: int, parts: deque[memoryview], size: int, largest: int) -> list[memoryview | bytes]:
    """The next `size` bytes of the parts, which are taken off them, in DATA frames of at most `largest`.

    A frame ends where a part does, so that parts are cut as little as can be; but a short one, such as the
    head of a message, shares its frame with the next.
    """
    frames = list[memoryview | bytes]()
    full = _data_header(stream, largest)
    while size:
        part = parts[0]
        if len(part) < _SHORT_BYTES and len(parts) > 1:
            body = min(len(parts[1]), largest - len(part), size - len(part))
            if body > 0:
                frames += (_data_header(stream, len(part) + body), part, parts[1][:body])
                parts.popleft()
                _take(parts, body)
                size -= len(part) + body
                continue
        count, left = divmod(min(len(part), size), largest)
        end = count * largest
        many: list[memoryview | bytes] = [full] * (2 * count)
        many[1::2] = [part[at : at + largest] for at in range(0, end, largest)]
        frames += many
        if left:
            frames += (_data_header(stream, left), part[end : end + left])
        _take(parts, end + left)
        size -= end + left
    return frames


def _data_header(stream: int, size: int) -> bytes:
    return _HEADER.pack(size >> 16, size & 0xFFFF, _DATA, 0, stream)


def _take(parts: deque[memoryview], size: int) -> None:
    """Take bytes off the first part."""
    if size == len(parts[0]):
        parts.popleft()
    else:
        parts[0] = parts[0][size:]


def go_away(last_stream: int, code: int = 0) -> bytes:
    """A GOAWAY frame: streams after `last_stream` are not handled here."""
    return _HEADER.pack(0, 8, _GOAWAY, 0, 0) + struct.pack(">LL", last_stream, code)
