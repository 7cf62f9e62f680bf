"""Fragmented MP4 as Kino stores it: parsing what an encoder wrote, and writing it again in one exact form.

Every encoder has its own habits (edit lists, negative composition offsets, where `tfdt` starts), and they
change with its version. So samples are read out of the encoder's file, checked, and written anew: `tfdt` is
the segment's absolute presentation start, one fragment per sync point, unsigned composition offsets around a
constant delay that the init segment's edit list takes off again. Players that ignore edit lists are then late
by that constant, and never by something that changes from one segment to the next.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.media import bmff
from services.media.bmff import Box, Reader
from services.media.errors import MalformedMedia

VIDEO_TRACK_ID = 1
AUDIO_TRACK_ID = 2
#: More samples in one run than any segment of ten seconds has: a larger number is a lie.
MAX_SAMPLES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One coded frame: decode duration and composition offset in ticks, and its bytes."""

    duration_ticks: int
    composition_ticks: int
    sync: bool
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class RawFragment:
    """One `moof` with its data as an encoder wrote it; `tfdt_ticks` is when its first sample is decoded."""

    sequence: int
    track_id: int
    tfdt_ticks: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """Where one `moof` with its `mdat` lies in a segment, and what it holds (no payload)."""

    offset: int
    size_bytes: int
    tfdt_ticks: int
    duration_ticks: int
    sample_count: int
    #: Whether it begins with a sync sample.
    sync: bool


@dataclass(frozen=True)
class _Defaults:
    duration: int
    size: int
    flags: int


def init_of(data: bytes) -> bytes:
    """The init segment of a fragmented file: `ftyp` and `moov`."""
    return bmff.raw(data, bmff.find(data, b"ftyp")) + bmff.raw(data, bmff.find(data, b"moov"))


def only_track(init: bytes) -> Box:
    """The single `trak` of an init segment."""
    traks = bmff.children(init, bmff.find(init, b"moov"), b"trak")
    if len(traks) != 1:
        raise MalformedMedia(problem=f"{len(traks)} tracks where one was expected")
    return traks[0]


def track_id_of(init: bytes, trak: Box) -> int:
    """The `track_ID` of a track's header."""
    reader = Reader(init, bmff.find(init, b"tkhd", within=trak))
    version, _ = reader.full()
    reader.skip(16 if version else 8)
    return reader.take("I")


def _trex_defaults(init: bytes) -> dict[int, _Defaults]:
    found = {}
    mvex = bmff.find(init, b"moov", b"mvex")
    for trex in bmff.children(init, mvex, b"trex"):
        reader = Reader(init, trex)
        reader.full()
        track_id = reader.take("I")
        reader.take("I")
        found[track_id] = _Defaults(reader.take("I"), reader.take("I"), reader.take("I"))
    return found


def _tfhd(data: bytes, traf: Box, moof: Box, trex: dict[int, _Defaults]) -> tuple[int, int, _Defaults]:
    """Track, base offset of its data and sample defaults of a track fragment (8.8.7)."""
    reader = Reader(data, bmff.find(data, b"tfhd", within=traf))
    _, flags = reader.full()
    track_id = reader.take("I")
    base = reader.take("Q") if flags & 0x1 else moof.start
    if flags & 0x2:
        reader.take("I")
    known = trex.get(track_id, _Defaults(0, 0, 0))
    duration = reader.take("I") if flags & 0x8 else known.duration
    size = reader.take("I") if flags & 0x10 else known.size
    sample_flags = reader.take("I") if flags & 0x20 else known.flags
    return track_id, base, _Defaults(duration, size, sample_flags)


def _tfdt(data: bytes, traf: Box) -> int:
    reader = Reader(data, bmff.find(data, b"tfdt", within=traf))
    version, _ = reader.full()
    return reader.take("Q" if version else "I")


def _trun(data: bytes, trun: Box, base: int, defaults: _Defaults) -> tuple[list[Sample], int]:
    """The samples of one run (8.8.8) and where the data after them begins."""
    reader = Reader(data, trun)
    version, flags = reader.full()
    count = reader.take("I")
    if count > MAX_SAMPLES:
        raise MalformedMedia(problem=f"a run of {count} samples")
    if flags & 0x1:
        base += reader.take("i")
    first_flags = reader.take("I") if flags & 0x4 else None
    samples = []
    for index in range(count):
        duration = reader.take("I") if flags & 0x100 else defaults.duration
        size = reader.take("I") if flags & 0x200 else defaults.size
        own = reader.take("I") if flags & 0x400 else defaults.flags
        if index == 0 and first_flags is not None:
            own = first_flags
        composition = reader.take("i" if version else "I") if flags & 0x800 else 0
        if base < 0 or base + size > len(data):
            raise MalformedMedia(problem=f"a sample of {size} bytes at {base} lies outside the file")
        sync = not own & bmff.NON_SYNC_BIT
        payload = data[base : base + size]
        samples.append(
            Sample(duration_ticks=duration, composition_ticks=composition, sync=sync, payload=payload)
        )
        base += size
    return samples, base


def parse_fragment(data: bytes, moof: Box, trex: dict[int, _Defaults]) -> RawFragment:
    """The samples of one `moof` whose data lies in the same buffer."""
    sequence = Reader(data, bmff.find(data, b"mfhd", within=moof))
    sequence.full()
    trafs = bmff.children(data, moof, b"traf")
    if len(trafs) != 1:
        raise MalformedMedia(problem=f"a fragment of {len(trafs)} tracks")
    track_id, base, defaults = _tfhd(data, trafs[0], moof, trex)
    samples: list[Sample] = []
    for trun in bmff.children(data, trafs[0], b"trun"):
        read, base = _trun(data, trun, base, defaults)
        samples += read
    return RawFragment(
        sequence=sequence.take("I"),
        track_id=track_id,
        tfdt_ticks=_tfdt(data, trafs[0]),
        samples=tuple(samples),
    )


def parse_fragments(data: bytes, init: bytes | None = None) -> list[RawFragment]:
    """The fragments of a fragmented file, or of bare media with its `init` given apart."""
    trex = _trex_defaults(data if init is None else init)
    return [parse_fragment(data, box, trex) for box in bmff.boxes(data) if box.kind == b"moof"]


def index_fragments(segment: bytes, init: bytes) -> tuple[Fragment, ...]:
    """Where each fragment of a segment lies; the segment holds nothing but `moof` and `mdat` in turn."""
    trex = _trex_defaults(init)
    found = []
    pending: Box | None = None
    for box in bmff.boxes(segment):
        if box.kind == b"moof" and pending is None:
            pending = box
        elif box.kind == b"mdat" and pending is not None:
            parsed = parse_fragment(segment, pending, trex)
            found.append(
                Fragment(
                    offset=pending.start,
                    size_bytes=box.end - pending.start,
                    tfdt_ticks=parsed.tfdt_ticks,
                    duration_ticks=sum(sample.duration_ticks for sample in parsed.samples),
                    sample_count=len(parsed.samples),
                    sync=bool(parsed.samples) and parsed.samples[0].sync,
                )
            )
            pending = None
        else:
            raise MalformedMedia(problem=f"box {box.kind!r} at {box.start} does not belong in a segment")
    if pending is not None:
        raise MalformedMedia(problem="the last fragment has no data")
    return tuple(found)


def write_fragment(*, track_id: int, sequence: int, tfdt_ticks: int, samples: Sequence[Sample]) -> bytes:
    """One `moof` and `mdat`; what all samples share is written once."""
    durations = {sample.duration_ticks for sample in samples}
    same = len(durations) == 1
    composed = any(sample.composition_ticks for sample in samples)
    following = bmff.NON_SYNC_FLAGS if not all(s.sync for s in samples) else bmff.SYNC_FLAGS
    opening = bmff.SYNC_FLAGS if samples[0].sync else bmff.NON_SYNC_FLAGS
    if any(sample.sync != (following == bmff.SYNC_FLAGS) for sample in samples[1:]):
        raise ValueError("a sync sample may only open a fragment")
    tfhd = struct.pack(">I", track_id)
    tfhd += struct.pack(">I", durations.pop()) if same else b""
    tfhd += struct.pack(">I", following)
    # default-base-is-moof, and which defaults are given.
    tfhd_flags = 0x020000 | (0x8 if same else 0) | 0x20
    trun_flags = 0x1 | 0x4 | (0 if same else 0x100) | 0x200 | (0x800 if composed else 0)
    entries = bytearray()
    for sample in samples:
        entries += b"" if same else struct.pack(">I", sample.duration_ticks)
        entries += struct.pack(">I", len(sample.payload))
        entries += struct.pack(">I", sample.composition_ticks) if composed else b""

    def moof(data_offset: int) -> bytes:
        run = struct.pack(">IiI", len(samples), data_offset, opening)
        traf = bmff.make(
            b"traf",
            bmff.make_full(b"tfhd", 0, tfhd_flags, tfhd),
            bmff.make_full(b"tfdt", 1, 0, struct.pack(">Q", tfdt_ticks)),
            bmff.make_full(b"trun", 0, trun_flags, run, bytes(entries)),
        )
        return bmff.make(b"moof", bmff.make_full(b"mfhd", 0, 0, struct.pack(">I", sequence)), traf)

    return moof(len(moof(0)) + 8) + bmff.make(b"mdat", *(sample.payload for sample in samples))


def _without_bitrates(data: bytes, stsd: Box) -> bytes:
    """`stsd` without `btrt`: the measured bit rate would give each chunk an init segment of its own."""
    entries = []
    body = data[stsd.body : stsd.body + 8]
    for entry in bmff.boxes(data, stsd.body + 8, stsd.end):
        # The fixed fields before the first inner box: 78 bytes in a visual entry, 28 in an audio entry (12.1,
        # 12.2).
        fixed = 28 if entry.kind in (b"mp4a", b"Opus") else 78
        inner = [
            bmff.raw(data, box)
            for box in bmff.boxes(data, entry.body + fixed, entry.end)
            if box.kind != b"btrt"
        ]
        entries.append(bmff.make(entry.kind, data[entry.body : entry.body + fixed], *inner))
    return bmff.make(b"stsd", body, *entries)


def _rebuilt(data: bytes, box: Box) -> bytes:
    """A box copied, its sample descriptions stripped of what changes from chunk to chunk."""
    if box.kind == b"stsd":
        return _without_bitrates(data, box)
    if box.kind in bmff.CONTAINERS:
        return bmff.make(box.kind, *(_rebuilt(data, child) for child in bmff.boxes(data, box.body, box.end)))
    return bmff.raw(data, box)


def _edits(media_time: int) -> bytes:
    """An edit list that takes `media_time` ticks of decode delay off (8.6.6); duration zero: to the end."""
    if media_time == 0:
        return b""
    entry = struct.pack(">IIiHH", 1, 0, media_time, 1, 0)
    return bmff.make(b"edts", bmff.make_full(b"elst", 0, 0, entry))


def _tkhd(data: bytes, trak: Box, track_id: int) -> bytes:
    box = bmff.find(data, b"tkhd", within=trak)
    at = 8 + (20 if data[box.body] == 1 else 12)
    return bmff.patched(bmff.raw(data, box), at, track_id)


def write_init(encoder_init: bytes, *, track_id: int, media_time: int) -> bytes:
    """The one init segment of a rendition, from that of any of its chunks.

    It depends only on the codec's parameters: `media_time` (ticks of decode delay or priming) becomes its
    edit list, and measured or encoder-named boxes (`btrt`, `udta`) are left out.
    """
    trak = only_track(encoder_init)
    mvhd = bmff.raw(encoder_init, bmff.find(encoder_init, b"moov", b"mvhd"))
    mdia = _rebuilt(encoder_init, bmff.find(encoder_init, b"mdia", within=trak))
    track = bmff.make(b"trak", _tkhd(encoder_init, trak, track_id), _edits(media_time), mdia)
    trex = bmff.make_full(b"trex", 0, 0, struct.pack(">IIIII", track_id, 1, 0, 0, 0))
    return _ftyp() + bmff.make(b"moov", _next_track(mvhd, track_id + 1), track, bmff.make(b"mvex", trex))


def _ftyp() -> bytes:
    """iso6 for `tfdt` and default-base-is-moof; cmfc says CMAF (ISO/IEC 23000-19, 7.2)."""
    return bmff.make(b"ftyp", b"iso6", struct.pack(">I", 0), b"iso6", b"cmfc", b"dash", b"mp41")


def _next_track(mvhd: bytes, next_track_id: int) -> bytes:
    return bmff.patched(mvhd, len(mvhd) - 4, next_track_id)


def combined_init(inits: Iterable[bytes]) -> bytes:
    """One init segment for several single-track ones whose track numbers differ.

    Media of these tracks, in any order, then follows it as one valid stream.
    """
    parts = list(inits)
    tracks, extends, ids = [], [], []
    for init in parts:
        moov = bmff.find(init, b"moov")
        for trak in bmff.children(init, moov, b"trak"):
            tracks.append(bmff.raw(init, trak))
            ids.append(track_id_of(init, trak))
        extends += [
            bmff.raw(init, trex)
            for trex in bmff.children(init, bmff.find(init, b"mvex", within=moov), b"trex")
        ]
    if len(set(ids)) != len(ids):
        raise MalformedMedia(problem=f"two tracks are called {ids}")
    mvhd = bmff.raw(parts[0], bmff.find(parts[0], b"moov", b"mvhd"))
    return _ftyp() + bmff.make(
        b"moov", _next_track(mvhd, max(ids) + 1), *tracks, bmff.make(b"mvex", *extends)
    )


def _hevc_string(record: bytes) -> str:
    """`hvc1` with profile, compatibility, tier, level and constraints (ISO/IEC 14496-15, E.3)."""
    if len(record) < 13:
        raise MalformedMedia(problem="the decoder configuration of HEVC is cut short")
    space = ("", "A", "B", "C")[record[1] >> 6]
    tier = "H" if record[1] & 0b100000 else "L"
    # The compatibility flags are written from the last bit to the first.
    flags = int(f"{int.from_bytes(record[2:6], 'big'):032b}"[::-1], 2)
    constraints = record[6:12].rstrip(b"\0")
    parts = [f"{space}{record[1] & 0b11111}", f"{flags:X}", f"{tier}{record[12]}"]
    return ".".join(["hvc1", *parts, *(f"{byte:X}" for byte in constraints)])


def codec_string(init: bytes) -> str:
    """The codec of a single-track init segment as players name it (RFC 6381; AV1-in-ISOBMFF 5)."""
    stsd = bmff.find(init, b"mdia", b"minf", b"stbl", b"stsd", within=only_track(init))
    entry = next(bmff.boxes(init, stsd.body + 8, stsd.end))
    if entry.kind == b"mp4a":
        # 40: MPEG-4 audio; 2: AAC-LC, the only kind that is made here.
        return "mp4a.40.2"
    if entry.kind == b"Opus":
        return "opus"
    inner = list(bmff.boxes(init, entry.body + 78, entry.end))
    for box in inner:
        if box.kind == b"avcC":
            return "avc1." + init[box.body + 1 : box.body + 4].hex()
        if box.kind == b"hvcC":
            return _hevc_string(init[box.body : box.end])
        if box.kind == b"av1C":
            profile, level = init[box.body + 1] >> 5, init[box.body + 1] & 0b11111
            flags = init[box.body + 2]
            tier = "H" if flags & 0x80 else "M"
            depth = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
            return f"av01.{profile}.{level:02}{tier}.{depth:02}"
    raise MalformedMedia(problem=f"no known codec in {entry.kind!r}")
