"""Takes text tracks and small pictures out of a source, shut in."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.media import sandbox
from services.media.errors import EncoderFailed, EncoderStalled, MediaError, SandboxLimit, SourceChanged
from services.media.pictures import PictureFormat
from services.media.scratch import Scratch
from services.media.time import NS_PER_SECOND
from services.preprocessor import webvtt
from services.preprocessor.model import SourceReport, SourceText, SourceVideo, Treatment, TreatmentKind
from services.preprocessor.treatments import MOST_TEXTS
from services.runtime.logs import logger

_log = logger("preprocessor")
EXTRACT_LIMITS = sandbox.Limits(file_bytes=32 << 20, stall_s=110)
#: A tile is so wide; a sheet holds so many.
TILE_WIDTH, COLUMNS, ROWS = 160, 10, 10
#: About so many tiles, however long the title.
MOST_TILES = 600


@dataclass(frozen=True, kw_only=True)
class Board:
    """How small pictures are laid out."""

    interval_s: int
    tile_count: int
    tile_width: int
    tile_height: int

    @property
    def sheet_count(self) -> int:
        """How many sheets hold all tiles."""
        return -(-self.tile_count // (COLUMNS * ROWS))


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A text track as WebVTT."""

    track_id: str
    source: SourceText
    cue_count: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What was taken out of a source."""

    board: Board
    sheets: tuple[bytes, ...]
    texts: tuple[TextFile, ...]
    #: Text tracks that turned out not to be had.
    left_out: tuple[Treatment, ...]
    commands: tuple[str, ...]


def board_of(report: SourceReport) -> Board:
    """A tile a second for short titles, and about `MOST_TILES` for long ones."""
    seconds = max(report.duration_ns / NS_PER_SECOND, 0.001)
    interval = max(1, math.ceil(seconds / MOST_TILES))
    video = report.video
    height = round(TILE_WIDTH * video.display_height / video.display_width / 2) * 2
    return Board(
        interval_s=interval,
        tile_count=math.ceil(seconds / interval),
        tile_width=TILE_WIDTH,
        tile_height=min(max(height, 2), 4 * TILE_WIDTH),
    )


def _begin() -> list[str]:
    return [sandbox.ffmpeg(), "-hide_banner", "-nostdin", "-y", "-loglevel", "error"]


def _format(video: SourceVideo) -> PictureFormat:
    return PictureFormat(
        color_primaries=video.color_primaries,
        color_transfer=video.color_transfer,
        color_matrix=video.color_matrix,
    )


def board_command(report: SourceReport, board: Board) -> list[str]:
    """Writes the sheets to `0.jpg`, `1.jpg` and so on; progress goes to standard output."""
    video = report.video
    size = f"{board.tile_width}:{board.tile_height}"
    # Where key frames come often enough they alone are decoded, which costs a twentieth. Of an open GOP the
    # decoder hands out some of them only, and in a wrong order.
    often = video.longest_key_distance_s <= max(board.interval_s, 10) and not video.open_gop
    filters = [
        f"settb={video.time_base.numerator}/{video.time_base.denominator}",
        f"setpts=PTS-({video.first_pts})",
        # The picture on show at each moment: times are rounded up, so that the last one before it wins.
        f"fps=fps=1/{board.interval_s}:start_time=0:round=up",
        # As many as there are moments, also where the last pictures lie between two.
        "tpad=stop=-1:stop_mode=clone",
        f"trim=end_frame={board.tile_count}",
        *_format(video).color_filters(board.tile_width, board.tile_height),
        f"scale={size}:flags=area:out_range=pc,setsar=1,format=yuvj420p",
        f"tile={COLUMNS}x{ROWS}",
    ]
    return [
        *_begin(),
        *("-progress", "pipe:1", "-stats_period", "0.5"),
        *(("-skip_frame", "nokey") if often else ()),
        *("-threads", "1", "-copyts", *sandbox.INPUT_FLAGS),
        *("-filter_complex_threads", "1"),
        *("-filter_complex", f"[0:{video.stream_index}]{','.join(filters)}[v]", "-map", "[v]"),
        *("-fps_mode", "passthrough", "-c:v", "mjpeg", "-q:v", "5", "-flags:v", "+bitexact"),
        *("-start_number", "0", "-f", "image2", "%d.jpg"),
    ]


def text_command(texts: Sequence[SourceText]) -> list[str]:
    """Writes each text track to `STREAM.vtt`, on the container's clock."""
    argv = [*_begin(), "-progress", "pipe:1", "-copyts", *sandbox.INPUT_FLAGS]
    for text in texts:
        argv += ["-map", f"0:{text.stream_index}", "-c:s", "webvtt", "-f", "webvtt"]
        argv += ["-flush_packets", "0", f"{text.stream_index}.vtt"]
    return argv


def _any_word(piece: bytes) -> bool:
    """Whether a child that reads a long file has said anything: that it lives is all one can ask."""
    return bool(piece)


async def _run(source: Path, argv: list[str], folder: Path) -> str:
    command = sandbox.Command(argv=argv, source=source, scratch=folder, limits=EXTRACT_LIMITS)
    await sandbox.run(command, _any_word)
    return command.shell()


async def _texts(
    source: Path, texts: Sequence[SourceText], folder: Path, left_out: list[Treatment]
) -> list[str]:
    """All tracks in one reading; where one of them spoils it each alone, and that one is left out."""
    if not texts:
        return []
    try:
        return [await _run(source, text_command(texts), folder)]
    except (EncoderFailed, EncoderStalled, SandboxLimit) as error:
        if len(texts) == 1:
            (folder / f"{texts[0].stream_index}.vtt").unlink(missing_ok=True)
            _log.warning("text track left out", stream=texts[0].stream_index, reason=error.reason)
            left_out.append(_left_out(texts[0], error))
            return []
    return [command for text in texts for command in await _texts(source, [text], folder, left_out)]


def _left_out(text: SourceText, error: MediaError) -> Treatment:
    """Why a track is missing, in words for whoever uploaded it."""
    why = {
        EncoderFailed.reason: f"it is damaged, or no text that FFmpeg reads as {text.codec}",
        EncoderStalled.reason: f"reading it stood still for {EXTRACT_LIMITS.stall_s:g} s",
        SandboxLimit.reason: f"it needs more than {error.details.get('limit', 'is allowed')}",
    }[error.reason]
    reason = f"Text track {text.stream_index} ({text.language}) is left out: {why}."
    return Treatment(kind=TreatmentKind.DROP_TRACK, reason=reason, stream_index=text.stream_index)


def _text_file(folder: Path, number: int, text: SourceText, report: SourceReport) -> TextFile | None:
    path = folder / f"{text.stream_index}.vtt"
    if not path.exists():
        return None
    zero = report.video.first_pts * report.video.time_base
    cues = webvtt.placed(
        webvtt.parse(path.read_text(errors="replace")),
        round(zero * 1000),
        report.duration_ns // 1_000_000,
    )
    language = re.sub(r"[^a-z0-9]", "", text.language.lower())[:8] or "und"
    data = webvtt.write(cues).encode()
    return TextFile(track_id=f"vtt-{language}-{number}", source=text, cue_count=len(cues), data=data)


async def extract(source: Path, report: SourceReport, scratch: Scratch | None = None) -> Extracted:
    """The storyboard and all text tracks of a source; raises like `sandbox.run`, and `SourceChanged`."""
    board, texts = board_of(report), report.texts[:MOST_TEXTS]
    most = (board.sheet_count + len(texts)) * EXTRACT_LIMITS.file_bytes
    async with (scratch or Scratch()).folder("extract", most) as folder:
        commands = [await _run(source, board_command(report, board), folder)]
        left_out: list[Treatment] = []
        commands += await _texts(source, texts, folder, left_out)
        sheets, files = await asyncio.to_thread(_read, folder, report, board, texts)
        return Extracted(
            board=board, sheets=sheets, texts=files, left_out=tuple(left_out), commands=tuple(commands)
        )


def _read(
    folder: Path, report: SourceReport, board: Board, texts: Sequence[SourceText]
) -> tuple[tuple[bytes, ...], tuple[TextFile, ...]]:
    """The sheets and the text tracks that were written. Raises `SourceChanged`."""
    sheets = [folder / f"{number}.jpg" for number in range(board.sheet_count)]
    if not all(sheet.exists() for sheet in sheets):
        raise SourceChanged(problem=f"it gives fewer than {board.sheet_count} sheets of small pictures")
    files = [_text_file(folder, number, text, report) for number, text in enumerate(texts)]
    return tuple(sheet.read_bytes() for sheet in sheets), tuple(file for file in files if file is not None)
