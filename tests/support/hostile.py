"""Files that mean harm: each names what it must not read, or claims what no machine has."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

from services.media.sandbox import ffmpeg


def hls(target: str) -> bytes:
    """A playlist of FFmpeg's most powerful kind."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n".encode()


def concat(target: str) -> bytes:
    """A list of files to be joined."""
    return f"ffconcat version 1.0\nfile '{target}'\n".encode()


def dash(target: str) -> bytes:
    """A manifest that begins like one."""
    return b'<?xml version="1.0"?>' + dash_in_disguise(target)


def dash_in_disguise(target: str) -> bytes:
    """A manifest that begins like none: FFmpeg looks for it further on."""
    return (
        "<!-- film --><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'"
        " profiles='urn:mpeg:dash:profile:isoff-live:2011' type='static'"
        " mediaPresentationDuration='PT2S' minBufferTime='PT1S'><Period>"
        "<AdaptationSet contentType='video' mimeType='video/mp4'><Representation id='1' bandwidth='1'>"
        f"<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ).encode()


def session_description(target: str) -> bytes:
    """An SDP that asks for a stream from where `target` is."""
    port = target.rpartition(":")[2].partition("/")[0]
    port = port if port.isdecimal() else "5004"
    lines = ("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=film", "c=IN IP4 127.0.0.1", "t=0 0")
    return "\r\n".join([*lines, f"m=video {port} RTP/AVP 96", "a=rtpmap:96 H264/90000", ""]).encode()


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def reference_movie(data: bytes, target: Path) -> bytes:
    """An MP4 whose pictures are said to be in another file, as QuickTime's aliases say it."""
    at = data.index(b"dref") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    name, path = target.name.encode(), str(target).encode()
    alias = bytearray(130)
    alias[50 : 51 + len(name)] = bytes([len(name)]) + name
    tail = struct.pack(">hh", 2, len(path)) + path + b"\0" * (len(path) % 2)
    tail += struct.pack(">hh", 18, 1) + b"/\0" + struct.pack(">hh", -1, 0)
    entry = _box(b"alis", bytes(8), bytes(alias), tail)
    new = _box(b"dref", struct.pack(">II", 0, 1), entry)
    made = bytearray(data[:at] + new + data[at + size :])
    for kind in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        where = made.index(kind) - 4
        length = int.from_bytes(made[where : where + 4], "big")
        made[where : where + 4] = struct.pack(">I", length + len(new) - size)
    return bytes(made)


_ASS = """[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,{secret},20
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Picture: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,{secret}
Movie: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,{address}
Command: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,cp {secret} escaped
Dialogue: 0,0:00:00.20,0:00:01.00,Default,,0,0,0,,{{\\fn{secret}}}said in ass
"""
_VTT = """WEBVTT

STYLE
@import url({address});
::cue {{ background: url(file://{secret}) }}

00:00.200 --> 00:01.000
said in vtt
"""


def words_that_name(film: Path, secret: Path, address: str, out: Path) -> Path:
    """A film whose text tracks and attached font name a file, a command and an address. Matroska."""
    folder = out.parent
    texts = []
    for name, text in (("a.ass", _ASS), ("b.vtt", _VTT)):
        (folder / name).write_text(text.format(secret=secret, address=address))
        texts += ["-i", str(folder / name)]
    font = ["-attach", str(secret), "-metadata:s:t:0", "mimetype=application/x-truetype-font"]
    font += ["-metadata:s:t:0", "filename=../../escaped.ttf"]
    _ffmpeg("-i", str(film), *texts, "-map", "0", "-map", "1", "-map", "2", *font, "-c", "copy", str(out))
    # What was attached is the secret only for this: a font's bytes are never looked at.
    data = out.read_bytes()
    content = secret.read_bytes()
    assert data.count(content) == 1
    out.write_bytes(data.replace(content, bytes(len(content))))
    return out


def much_text(film: Path, out: Path, cue_count: int, cue_bytes: int) -> Path:
    """A film with a text track of so much text."""
    words = out.with_suffix(".srt")
    with words.open("w") as file:
        for cue in range(cue_count):
            file.write(f"{cue + 1}\n00:00:00,{cue:03} --> 00:00:01,{cue:03}\n{'x' * cue_bytes}\n\n")
    _ffmpeg("-i", str(film), "-i", str(words), "-map", "0", "-map", "1", "-c", "copy", str(out))
    return out


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _header(side: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))


def picture(side: int) -> bytes:
    """A black PNG of one bit a pixel."""
    rows = zlib.compress(bytes(side * (1 + (side + 7) // 8)), 1)
    return b"\x89PNG\r\n\x1a\n" + _header(side) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def claimed_by_pictures(film: Path, side: int, claim: int) -> None:
    """Let the PNG pictures of a film claim another size than they have."""
    film.write_bytes(film.read_bytes().replace(_header(side), _header(claim)))


def film_of(pictures: Sequence[bytes], out: Path) -> Path:
    """A film of these PNG files, 25 a second, as they are."""
    stream = out.with_suffix(".png")
    stream.write_bytes(b"".join(pictures))
    _ffmpeg("-f", "png_pipe", "-framerate", "25", "-i", str(stream), "-c", "copy", str(out))
    return out


def claimed_size(data: bytes, side: int) -> bytes:
    """An MP4 whose container claims pictures of another size than they have."""
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


def frames_without_end(data: bytes) -> bytes:
    """An MP4 that claims four thousand million frames, all at the same moment."""
    at = data.index(b"stts") + 12
    return data[:at] + struct.pack(">II", 0xFFFFFFFF, 0) + data[at + 8 :]


def days_between_frames(data: bytes) -> bytes:
    """An MP4 whose frames are shown for an hour each, and no edit list ends that."""
    data = data.replace(b"edts", b"free")
    at = data.index(b"stts") + 12
    return data[:at] + struct.pack(">II", 1000, 0x08000000) + data[at + 8 :]


def samples_without_end(data: bytes) -> bytes:
    """An MP4 that claims 268 million samples of one byte, all in one chunk."""
    at = data.index(b"stsz") + 8
    data = data[:at] + struct.pack(">II", 1, 0x0FFFFFFF) + data[at + 8 :]
    at = data.index(b"stsc") + 16
    return data[:at] + struct.pack(">I", 0x0FFFFFFF) + data[at + 4 :]


def slow_to_read(out: Path) -> Path:
    """A stream of the smallest pictures there are, 400,000 of them in 115 MB. MPEG-TS."""
    _ffmpeg("-f", "lavfi", "-i", "color=size=16x16:rate=50", "-frames:v", "200", "-bf", "0", str(out))
    out.write_bytes(out.read_bytes() * 2000)
    return out


def _ffmpeg(*words: str) -> None:
    argv = [ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-max_pixels", "2000000000"]
    subprocess.run([*argv, *words], check=True)
