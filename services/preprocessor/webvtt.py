"""WebVTT (W3C) as FFmpeg writes it, read and written anew on the title's time axis."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TIMING = re.compile(
    r"^(?:(\d{2,}):)?(\d{2}):(\d{2})\.(\d{3}) --> (?:(\d{2,}):)?(\d{2}):(\d{2})\.(\d{3})(.*)$"
)
#: More text than any film has.
MAX_CUES = 100_000
MAX_CUE_CHARS = 4_000


@dataclass(frozen=True, kw_only=True)
class Cue:
    """A line of text and when it is shown, in milliseconds."""

    start_ms: int
    end_ms: int
    text: str
    #: Where it is shown, in the format's own words.
    settings: str = ""


def _ms(hours: str | None, minutes: str, seconds: str, milliseconds: str) -> int:
    return ((int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(milliseconds)


def parse(text: str) -> Iterator[Cue]:
    """The cues of a file; what is no cue is passed over."""
    for block in re.split(r"\n{2,}", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip("\n").split("\n")
        at = next((number for number, line in enumerate(lines[:2]) if _TIMING.match(line)), None)
        if at is None:
            continue
        match = _TIMING.match(lines[at])
        assert match is not None
        words = "\n".join(line for line in lines[at + 1 :] if line.strip())[:MAX_CUE_CHARS]
        yield Cue(
            start_ms=_ms(*match.groups()[:4]),
            end_ms=_ms(*match.groups()[4:8]),
            text=words,
            settings=match[9].strip(),
        )


def placed(cues: Iterator[Cue], zero_ms: int, duration_ms: int) -> list[Cue]:
    """The cues on the title's time axis, whose zero is `zero_ms` in theirs; what lies outside is left out."""
    kept: list[Cue] = []
    for cue in cues:
        start, end = max(cue.start_ms - zero_ms, 0), min(cue.end_ms - zero_ms, duration_ms)
        if start < end and cue.text and len(kept) < MAX_CUES:
            kept.append(Cue(start_ms=start, end_ms=end, text=cue.text, settings=cue.settings))
    return sorted(kept, key=lambda cue: (cue.start_ms, cue.end_ms))


def _clock(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


def write(cues: Sequence[Cue]) -> str:
    """A whole file."""
    blocks = [
        f"{_clock(cue.start_ms)} --> {_clock(cue.end_ms)}{' ' * bool(cue.settings)}{cue.settings}\n{cue.text}"
        for cue in cues
    ]
    return "\n\n".join(["WEBVTT", *blocks]) + "\n"
