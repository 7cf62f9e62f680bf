"""Streams as a client receives them, whole or broken off."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1 import resources_pb2 as res


@dataclass
class Played:
    """What one `Play` sent."""

    headers: list[res.PlayHeader] = field(default_factory=list)
    media: list[res.MediaChunk] = field(default_factory=list)
    #: How many chunks came before each header.
    marks: list[int] = field(default_factory=list)
    end: res.PlayEnd | None = None

    @property
    def header(self) -> res.PlayHeader:
        """The only header."""
        assert len(self.headers) == 1
        return self.headers[0]

    def stream(self) -> bytes:
        """As a decoder reads it from a pipe."""
        return self.header.combined_init + b"".join(chunk.data for chunk in self.media)

    def track(self, track: res.Track.ValueType) -> bytes:
        """The media of one track."""
        return b"".join(chunk.data for chunk in self.media if chunk.track == track)

    def media_of_headers(self) -> list[bytes]:
        """The pictures that follow each header."""
        bounds = [*self.marks, len(self.media)]
        return [
            b"".join(chunk.data for chunk in self.media[a:b] if chunk.track == res.TRACK_VIDEO)
            for a, b in pairwise(bounds)
        ]


async def play(stub: Any, token: str, offset_ns: int | None = None, **fields: Any) -> Played:
    """Read a stream to its end."""
    request = pb.PlayRequest(lease_token=token, **fields)
    if offset_ns is not None:
        request.offset.FromNanoseconds(offset_ns)
    played = Played()
    async for message in stub.Play(request):
        assert played.end is None, "something came after the end"
        match message.WhichOneof("message"):
            case "header":
                played.headers.append(message.header)
                played.marks.append(len(played.media))
            case "media":
                played.media.append(message.media)
            case "end":
                played.end = message.end
    return played


@dataclass(frozen=True, kw_only=True)
class Broken:
    """What arrived of a stream before it broke off, and what is lacking."""

    data: bytes
    #: None when nothing arrived.
    position: res.StreamPosition | None

    @classmethod
    def after(cls, whole: Played, size_bytes: int) -> Broken:
        """The first bytes of a stream with one header."""
        data, position = b"", None
        for chunk in whole.media:
            arrived = chunk.data[: size_bytes - len(data)]
            if not arrived:
                break
            data += arrived
            position = res.StreamPosition(
                video_rendition_id=whole.header.video.rendition_id,
                segment_number=chunk.segment_number,
                track=chunk.track,
                offset_bytes=chunk.offset_bytes + len(arrived),
            )
        return cls(data=data, position=position)


async def resume(stub: Any, token: str, broken: Broken, *, offset_ns: int) -> Played:
    """Go on where it broke off."""
    return await play(stub, token, offset_ns, resume=broken.position)
