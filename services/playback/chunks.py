"""Media messages as bytes: serialised once per segment, in fixed cuts, and sent to everybody as they are.

`MediaChunk` is the same field (2) of `PlayResponse` and of `ReadSegmentsResponse`, and its payload is its
last field, so a message is a short prefix before bytes of the object. It is written by hand here, because a
Protobuf object would copy the payload at every use; the tests hold it equal to the generated code.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Fixed cuts of a segment: each is one cached message, or some small ones. Larger gains nothing in the whole,
#: and a viewer who stalls keeps one.
CUT_BYTES = 1 << 20
#: First message of a stream: soon on the screen.
FIRST_BYTES = 64 << 10
#: Messages until a stream has shown its speed, and those of one that is slow; a part of a cut.
SMALL_BYTES = 256 << 10
#: A segment that memory has dropped is read again in whole blocks of this size.
BLOCK_BYTES = SMALL_BYTES


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


@dataclass(frozen=True)
class _Message:
    wire: bytes
    #: Where the payload begins in it.
    payload_at: int


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a reader remembers of a segment: enough to read any part of it again and know it is right."""

    track: Track
    #: -1: an init segment.
    number: int
    size_bytes: int
    #: CRC-32 of each block.
    marks: tuple[int, ...]

    def message(self, start: int, parts: Sequence[memoryview]) -> _Message:
        """The message with these bytes, which begin at `start`."""
        size = sum(map(len, parts))
        prefix = _prefix(self.track, self.number, start, start + size == self.size_bytes, size)
        return _Message(b"".join((prefix, *parts)), len(prefix))

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

    def message(self, start: int, end: int) -> bytes:
        """See `Chunks.message`."""
        return self._outline.message(start, list(self.views(start, end))).wire

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """See `Chunks.views`."""
        yield memoryview(self._data)[start - self._start : end - self._start]


class Chunks:
    """One segment (or init segment) ready to be sent.

    Each cut is kept as one message or as small ones, as it was last asked for: all who watch at the film's
    pace share the small ones, all who take what there is the large one, and memory holds every byte once.
    """

    def __init__(self, track: Track, number: int, data: bytes) -> None:
        """`number` is -1 for an init segment."""
        self.size_bytes = len(data)
        self.outline = Outline(track=track, number=number, size_bytes=len(data), marks=_marks(data))
        view = memoryview(data)
        self._cuts = [
            [self.outline.message(start, [view[start : start + CUT_BYTES]])]
            for start in range(0, max(len(data), 1), CUT_BYTES)
        ]
        #: What it takes in memory, but for the few bytes before each small message.
        self.memory_bytes = sum(len(message.wire) for (message,) in self._cuts)

    def message(self, start: int, end: int) -> bytes:
        """The message with the bytes `start` ≤ i < `end`: a shared one where they are a cut or its part."""
        size = CUT_BYTES if start % CUT_BYTES == 0 and end - start > SMALL_BYTES else SMALL_BYTES
        if start % size == 0 and end == min(start + size, self.size_bytes):
            return self._shared(start, size)
        return self.outline.message(start, list(self.views(start, end))).wire

    def _shared(self, start: int, size_bytes: int) -> bytes:
        index, inside = divmod(start, CUT_BYTES)
        first = index * CUT_BYTES
        end = min(first + CUT_BYTES, self.size_bytes)
        starts = range(first, max(end, first + 1), size_bytes)  # an empty object has one message too
        if len(self._cuts[index]) != len(starts):
            self._cuts[index] = [
                self.outline.message(at, list(self.views(at, min(at + size_bytes, end)))) for at in starts
            ]
        return self._cuts[index][inside // size_bytes].wire

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """The same bytes bare, in as many pieces as messages hold them, without a copy."""
        while start < end:
            index, inside = divmod(start, CUT_BYTES)
            messages = self._cuts[index]
            size_bytes = CUT_BYTES if len(messages) == 1 else SMALL_BYTES
            part, inside = divmod(inside, size_bytes)
            stop = min(end, start - inside + size_bytes)
            message = messages[part]
            at = message.payload_at + inside
            yield memoryview(message.wire)[at : at + stop - start]
            start = stop

    def data(self) -> bytes:
        """All bytes, copied; for init segments."""
        return b"".join(self.views(0, self.size_bytes))


def _marks(data: bytes) -> tuple[int, ...]:
    view = memoryview(data)
    return tuple(zlib.crc32(view[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES))


class Ramp:
    """How large the next message of a stream is: small at first, and while its reader is slow.

    A reader that waits for the film's own pace has a message in memory nearly always, so that is a small one;
    who takes all there is takes it in large ones, which cost least.
    """

    #: What a reader takes less than is slow: some times the rate of any rendition.
    FAST_BYTES_PER_S = 4 << 20

    def __init__(self) -> None:
        self._sent_bytes = 0
        self._slow = False

    def cut(self, start: int, end: int) -> int:
        """Where the message that begins at `start` ends, at most `end`. Never crosses a fixed cut."""
        size = FIRST_BYTES if not self._sent_bytes else SMALL_BYTES
        # A large message is always the one that all share: another would be copied for this reader alone.
        if self._sent_bytes >= CUT_BYTES and not self._slow and start % CUT_BYTES == 0:
            size = CUT_BYTES
        return min(start - start % size + size, end)

    def sent(self, size_bytes: int, seconds: float) -> None:
        """A message of that payload was taken by the connection after so many seconds."""
        self._sent_bytes += size_bytes
        self._slow = size_bytes < seconds * self.FAST_BYTES_PER_S


def http_body(content_type: str, parts: list[memoryview]) -> bytes:
    """A `google.api.HttpBody` message (content_type = 1, data = 2) around those bytes, copied once."""
    kind = content_type.encode()
    size = sum(map(len, parts))
    head = b"\x0a" + varint(len(kind)) + kind
    return b"".join((head, b"\x12" + varint(size), *parts)) if size else head
