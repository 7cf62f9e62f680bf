"""Media messages: a short prefix before bytes of the object, which everybody is sent from where they lie.

`MediaChunk` is the same field (2) of `PlayResponse` and of `ReadSegmentsResponse`, and its payload is its
last field. The prefix is written by hand here, because a Protobuf object would copy the payload at every use;
the tests hold it equal to the generated code.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

#: Messages to a fast reader: each costs some work whatever its size, and clients take 4 MiB at most.
CUT_BYTES = 2 << 20
#: First message of a stream: soon on the screen.
FIRST_BYTES = 64 << 10
#: Messages until a stream has shown its speed.
SMALL_BYTES = 256 << 10
#: Messages to a reader that takes them at about the film's pace.
STEADY_BYTES = 512 << 10
#: A segment is kept in blocks of this size, and read again in whole ones when memory has dropped it.
BLOCK_BYTES = SMALL_BYTES

#: What a fast reader has taken before it gets large messages.
_PROVEN_BYTES = 1 << 20

#: The parts of a message, in order.
Buffers: TypeAlias = tuple[bytes | memoryview, ...]


class Track(enum.IntEnum):
    """A track of a stream, numbered as in `kino.playback.v1.Track` and in every file."""

    VIDEO = 1
    AUDIO = 2


def varint(value: int) -> bytes:
    """A number as Protobuf writes it; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _prefix(track: Track, number: int, offset_bytes: int, last: bool, size_bytes: int) -> bytes:
    """Everything of a message before its payload; fields with their default value are left out."""
    chunk = b"\x08" + varint(track)
    if number:
        chunk += b"\x10" + varint(number)
    if offset_bytes:
        chunk += b"\x18" + varint(offset_bytes)
    if last:
        chunk += b"\x20\x01"
    if size_bytes:
        chunk += b"\x2a" + varint(size_bytes)
    return b"\x12" + varint(len(chunk) + size_bytes) + chunk


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a reader remembers of a segment: enough to read any part of it again and know it is right."""

    track: Track
    #: -1: an init segment.
    number: int
    size_bytes: int
    #: CRC-32 of each block.
    marks: tuple[int, ...]

    def message(self, start: int, parts: Iterable[memoryview]) -> Buffers:
        """The message with these bytes, which begin at `start`."""
        held = tuple(parts)
        size = sum(map(len, held))
        return _prefix(self.track, self.number, start, start + size == self.size_bytes, size), *held

    def blocks(self, start: int, end: int) -> tuple[int, int]:
        """Where the blocks begin and end that hold the bytes `start` ≤ i < `end`."""
        return start - start % BLOCK_BYTES, min(end + -end % BLOCK_BYTES, self.size_bytes)


class Piece:
    """Some blocks of a segment, read again."""

    def __init__(self, outline: Outline, start: int, data: bytes) -> None:
        """`start` is where a block begins."""
        self._outline = outline
        self._start = start
        self._data = data

    @property
    def right(self) -> bool:
        """Whether the blocks are what they were when the whole segment was verified."""
        first = self._start // BLOCK_BYTES
        marks = _marks(self._data)
        return marks == self._outline.marks[first : first + len(marks)]

    def message(self, start: int, end: int) -> Buffers:
        """See `Chunks.message`."""
        return self._outline.message(start, self.views(start, end))

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """See `Chunks.views`."""
        yield memoryview(self._data)[start - self._start : end - self._start]


class Chunks:
    """One segment (or init segment) ready to be sent, in blocks: who stalls keeps those of one message."""

    def __init__(self, track: Track, number: int, data: bytes) -> None:
        """`number` is -1 for an init segment."""
        self.size_bytes = self.memory_bytes = len(data)
        self._blocks = [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]
        marks = tuple(map(zlib.crc32, self._blocks))
        self.outline = Outline(track=track, number=number, size_bytes=len(data), marks=marks)

    def message(self, start: int, end: int) -> Buffers:
        """The message with the bytes `start` ≤ i < `end`."""
        return self.outline.message(start, self.views(start, end))

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """The same bytes bare, in as many pieces as blocks hold them, without a copy."""
        while start < end:
            index, inside = divmod(start, BLOCK_BYTES)
            piece = memoryview(self._blocks[index])[inside : inside + end - start]
            yield piece
            start += len(piece)

    def data(self) -> bytes:
        """All bytes, copied; for init segments."""
        return b"".join(self.views(0, self.size_bytes))


def _marks(data: bytes) -> tuple[int, ...]:
    view = memoryview(data)
    return tuple(zlib.crc32(view[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES))


class Ramp:
    """How large the next message of a stream is: small at first, and smaller while its reader is slow.

    A reader that waits for the film's own pace gets middling ones, which it has whole sooner; who takes all
    there is takes it in large ones, which cost least.
    """

    #: What a reader takes less than is slow: some times the rate of any rendition.
    FAST_BYTES_PER_S = 4 << 20

    def __init__(self) -> None:
        self._sent_bytes = 0
        self._slow = False

    def cut(self, start: int, end: int) -> int:
        """Where the message that begins at `start` ends, at most `end`."""
        size = FIRST_BYTES if not self._sent_bytes else SMALL_BYTES
        if self._sent_bytes >= _PROVEN_BYTES:
            size = STEADY_BYTES if self._slow else CUT_BYTES
        return min(start - start % size + size, end)

    def sent(self, size_bytes: int, seconds: float) -> None:
        """A message of that payload was taken by the connection after so many seconds."""
        self._sent_bytes += size_bytes
        self._slow = size_bytes < seconds * self.FAST_BYTES_PER_S


def http_body(content_type: str, parts: Iterable[memoryview]) -> Buffers:
    """A `google.api.HttpBody` message (content_type = 1, data = 2) around those bytes."""
    kind, held = content_type.encode(), tuple(parts)
    size = sum(map(len, held))
    head = b"\x0a" + varint(len(kind)) + kind
    return (head + b"\x12" + varint(size), *held) if size else (head,)
