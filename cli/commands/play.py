"""`kino play`: a stream from any moment, into a pipe or a file."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from google.protobuf.duration_pb2 import Duration

from cli.client import Kino, connect
from cli.main import State, run
from cli.output import clock, parse_offset
from cli.playing import stream
from kino.history.v1 import history_pb2, history_pb2_grpc
from kino.history.v1.resources_pb2 import Interval
from kino.media.v1 import media_pb2
from kino.playback.v1 import playback_pb2, playback_pb2_grpc, resources_pb2
from services.media.time import NS_PER_SECOND, rescale, segment_of
from services.runtime.errors import InvalidArgument

_CODECS = {
    "h264": media_pb2.VIDEO_CODEC_H264,
    "hevc": media_pb2.VIDEO_CODEC_HEVC,
    "av1": media_pb2.VIDEO_CODEC_AV1,
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(play)


def play(
    context: typer.Context,
    title: Annotated[str, typer.Argument(help="`titles/…`")],
    offset: Annotated[str | None, typer.Option(help="Where to start; default: where you stopped.")] = None,
    until: Annotated[str | None, typer.Option(help="Where to stop; default: the end.")] = None,
    codec: Annotated[str, typer.Option(help="h264, hevc or av1.")] = "h264",
    max_height: Annotated[int, typer.Option(help="Highest picture height; 0 for the best.")] = 0,
    out: Annotated[str, typer.Option(help="File to write, or - for a pipe; default: count only.")] = "",
    device: Annotated[str, typer.Option(help="Name of this device.")] = "kino command",
    profile: Annotated[str | None, typer.Option(help="Who watches; default: your first profile.")] = None,
    history: Annotated[bool, typer.Option(help="Record what was played.")] = True,
) -> None:
    """Play a title as one fMP4 stream.

    It begins at the sync point before the offset; `trim` says how much a player drops to be exact.

    \b
    kino play titles/0f3… --offset 1:15.5 --out - | mpv -
    kino play titles/0f3… --codec av1 --max-height 480 --out part.mp4
    """
    state: State = context.obj
    if codec not in _CODECS:
        raise typer.BadParameter(f"{codec} is no codec here; there are: {', '.join(_CODECS)}.")
    wanted = parse_offset(offset) if offset is not None else None
    end = parse_offset(until) if until is not None else None

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = kino.stub(playback_pb2_grpc.PlaybackServiceStub)
            request = playback_pb2.StartPlaybackRequest(
                title=title, profile=await kino.profile(profile), device=device, request_id=str(uuid.uuid4())
            )
            started = await stub.StartPlayback(request)
            token = started.lease.token
            reading = Stream(token=token, duration=started.choice.duration, until=end, sink=_sink(out))
            play_request = playback_pb2.PlayRequest(
                lease_token=token,
                offset=wanted,
                video_codec=_CODECS[codec],
                max_height=max_height,
                segment_count=_segment_count(started.choice, wanted or started.resume_offset, end),
            )
            try:
                await reading.read(kino, play_request, started.edge_addresses)
            finally:
                if history and reading.header is not None:
                    await reading.record(kino)
                await stub.EndPlayback(playback_pb2.EndPlaybackRequest(lease_token=token))
                if reading.sink is not None and reading.sink is not sys.stdout.buffer:
                    reading.sink.close()
            if out != "-":
                state.output.facts(reading.facts())

    run(work)


def _segment_count(choice: resources_pb2.StreamChoice, start: Duration, until: Duration | None) -> int:
    """How many segments hold what is wanted; 0 for all. Raises `InvalidArgument` when nothing is."""
    if until is None:
        return 0
    if until.ToNanoseconds() <= start.ToNanoseconds():
        raise InvalidArgument("until", f"{clock(until)} is not after {clock(start)}, where it starts.")
    timeline = choice.timeline
    if not timeline.planned:
        return 0
    first, last = (
        segment_of(
            timeline.segment_start_ticks, rescale(at.ToNanoseconds(), NS_PER_SECOND, timeline.timescale)
        )
        for at in (start, until)
    )
    return last - first + 1


def _sink(out: str) -> BinaryIO | None:
    if out == "-":
        return sys.stdout.buffer
    return Path(out).open("wb") if out else None


class Stream:
    """One playback: writes what comes, and knows how far it is."""

    def __init__(
        self, *, token: str, duration: Duration, until: Duration | None, sink: BinaryIO | None
    ) -> None:
        self.token = token
        self.duration = duration
        self.until = until
        self.sink = sink
        self.header: resources_pb2.PlayHeader | None = None
        self.end: resources_pb2.PlayEnd | None = None
        self.media_bytes = 0

    async def read(self, kino: Kino, request: playback_pb2.PlayRequest, edges: Sequence[str] = ()) -> None:
        """Read to the end, from the edges as long as they can."""
        async for message in stream(kino, request, edges):
            if message.HasField("header"):
                self.header = message.header
                self._write(message.header.combined_init)
            elif message.HasField("media"):
                self.media_bytes += len(message.media.data)
                self._write(message.media.data)
            else:
                self.end = message.end

    @property
    def position(self) -> Duration:
        """Where the viewer is now: where to stop, or what the stream reached."""
        if self.end is None:
            assert self.header is not None
            return self.header.offset
        reached = self.end.next_offset if self.end.HasField("next_offset") else self.duration
        if self.until is not None and self.until.ToNanoseconds() < reached.ToNanoseconds():
            return self.until
        return reached

    async def record(self, kino: Kino) -> None:
        """Tell the history what was played."""
        assert self.header is not None
        intervals = []
        if self.position.ToNanoseconds() > self.header.offset.ToNanoseconds():
            intervals = [Interval(start_offset=self.header.offset, end_offset=self.position)]
        request = history_pb2.RecordProgressRequest(
            lease_token=self.token, sequence=1, position=self.position, intervals=intervals
        )
        await kino.stub(history_pb2_grpc.HistoryServiceStub).RecordProgress(request)

    def facts(self) -> dict[str, object]:
        """What was played."""
        if self.header is None:
            return {"media_bytes": 0}
        replaced = self.end is not None and self.end.reason == resources_pb2.PlayEnd.REASON_REPLACED
        note = {"note": "A newer film took the place of this one: play it again."} if replaced else {}
        return {
            "video": self.header.video.rendition_id,
            "audio": self.header.audio.rendition_id,
            "offset": clock(self.header.offset),
            "frame_number": self.header.frame_number,
            "media_start": clock(self.header.media_start),
            "trim_frame_count": self.header.trim_frame_count,
            "stopped_at": clock(self.position),
            "media_bytes": self.media_bytes,
            **note,
        }

    def _write(self, data: bytes) -> None:
        if self.sink is not None:
            self.sink.write(data)
