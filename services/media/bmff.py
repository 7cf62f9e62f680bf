"""ISO base media file format (ISO/IEC 14496-12): the boxes that Kino reads and writes.

Only what fragmented MP4 needs. Offsets and sizes are bytes into the buffer given; times are ticks of the
track's timescale. Whatever does not parse raises `MalformedMedia`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from services.media.errors import MalformedMedia

#: Boxes that hold nothing but boxes.
CONTAINERS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"mvex", b"moof", b"traf"}
)
#: How deep containers may nest before the file is taken for an attack.
MAX_DEPTH = 16

# Sample flags (8.8.3.1): depends on no other sample; depends on others and is not a sync sample.
SYNC_FLAGS = 0x02000000
NON_SYNC_FLAGS = 0x01010000
NON_SYNC_BIT = 0x00010000


@dataclass(frozen=True)
class Box:
    """Where one box lies: its four letters, first byte, header length and whole size."""

    kind: bytes
    start: int
    header: int
    size: int

    @property
    def body(self) -> int:
        """Where the payload begins."""
        return self.start + self.header

    @property
    def end(self) -> int:
        """The first byte after the box."""
        return self.start + self.size


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes side by side in `data[start:end]`; they must fill it exactly."""
    end = len(data) if end is None else end
    while start < end:
        if start + 8 > end:
            raise MalformedMedia(problem=f"{end - start} stray bytes at {start}")
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            if start + 16 > end:
                raise MalformedMedia(problem=f"a cut box header at {start}")
            header, size = 16, struct.unpack_from(">Q", data, start + 8)[0]
        elif size == 0:
            size = end - start
        if size < header or start + size > end:
            raise MalformedMedia(problem=f"box {kind!r} at {start} says it has {size} bytes")
        yield Box(kind, start, header, size)
        start += size


def find(data: bytes, *path: bytes, within: Box | None = None) -> Box:
    """The first box along `path`, from the top or inside `within`; raises when there is none."""
    found = first(data, *path, within=within)
    if found is None:
        raise MalformedMedia(problem=f"no box {b'/'.join(path).decode('latin-1')}")
    return found


def first(data: bytes, *path: bytes, within: Box | None = None) -> Box | None:
    """The first box along `path`, or None."""
    inside = within
    for kind in path:
        start, end = (0, len(data)) if inside is None else (inside.body, inside.end)
        inside = next((box for box in boxes(data, start, end) if box.kind == kind), None)
        if inside is None:
            return None
    return inside


def children(data: bytes, box: Box, kind: bytes) -> list[Box]:
    """All boxes of one kind directly inside `box`."""
    return [child for child in boxes(data, box.body, box.end) if child.kind == kind]


def raw(data: bytes, box: Box) -> bytes:
    """The box's bytes, header and all."""
    return data[box.start : box.end]


def make(kind: bytes, *parts: bytes) -> bytes:
    """A box around `parts`."""
    size = 8 + sum(map(len, parts))
    return b"".join((struct.pack(">I4s", size, kind), *parts))


def make_full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A full box (4.2): one with a version and flags before `parts`."""
    return make(kind, struct.pack(">I", version << 24 | flags), *parts)


class Reader:
    """Reads big-endian numbers one after the other out of one box's payload, and never beyond it."""

    def __init__(self, data: bytes, box: Box) -> None:
        self._data, self._box, self._at = data, box, box.body

    def take(self, form: str) -> int:
        """The next number, `form` being its letter in `struct`."""
        size = struct.calcsize(">" + form)
        if self._at + size > self._box.end:
            raise MalformedMedia(problem=f"box {self._box.kind!r} at {self._box.start} is cut short")
        value: int = struct.unpack_from(">" + form, self._data, self._at)[0]
        self._at += size
        return value

    def full(self) -> tuple[int, int]:
        """Version and flags of a full box."""
        word = self.take("I")
        return word >> 24, word & 0xFFFFFF

    def skip(self, count: int) -> None:
        """Passes over `count` bytes."""
        self._at += count


def patched(data: bytes, at: int, value: int, form: str = "I") -> bytes:
    """`data` with the number at `at` replaced."""
    return data[:at] + struct.pack(">" + form, value) + data[at + struct.calcsize(">" + form) :]


def timescale_of(data: bytes, trak: Box) -> int:
    """Ticks per second of a track (its `mdhd`)."""
    reader = Reader(data, find(data, b"mdia", b"mdhd", within=trak))
    version, _ = reader.full()
    reader.skip(16 if version else 8)
    timescale = reader.take("I")
    if timescale == 0:
        raise MalformedMedia(problem="a track with a timescale of zero")
    return timescale


def media_time_of(data: bytes, trak: Box) -> int:
    """The decode delay that a track's edit list takes off: `media_time` of its first real edit, else 0."""
    elst = first(data, b"edts", b"elst", within=trak)
    if elst is None:
        return 0
    reader = Reader(data, elst)
    version, _ = reader.full()
    for _ in range(reader.take("I")):
        reader.skip(8 if version else 4)
        media_time = reader.take("q" if version else "i")
        reader.skip(4)
        if media_time >= 0:
            return media_time
    return 0
