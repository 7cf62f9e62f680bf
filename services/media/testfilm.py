"""Films whose every frame names itself: the demo's footage and the judge of every encode.

Each frame carries its number as a bar code along its lower edge that survives an encode at 240 lines, and as
a clock for people. At each whole second one frame flashes white and a 1 kHz beep starts on the very same
instant. The picture changes at `cuts`; inside `loud` it changes every 0.4 s over loud noise, which makes a
highlight.
"""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from services.media.time import Timeline
from services.runtime.claims import temporary

Plane = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]

#: Bits of the frame number in the bar code, and of the check that follows them.
NUMBER_BITS = 18
CHECK_BITS = 4
#: A white and a black cell come first, from which the reader learns the two levels.
CELLS = 2 + NUMBER_BITS + CHECK_BITS
#: The bar code's height as a part of the frame's.
BAR_HEIGHT = Fraction(1, 9)
SAMPLE_RATE = 48_000
BEEP_HZ = 1_000
BEEP_SECONDS = 0.05
#: Which of the seven strokes (top, the two uppers, middle, the two lowers, bottom) each digit has.
STROKES = (
    "1110111",
    "0010010",
    "1011101",
    "1011011",
    "0111010",
    "1101011",
    "1101111",
    "1010010",
    "1111111",
    "1111011",
)


@dataclass(frozen=True, kw_only=True)
class FilmSpec:
    """What the film is like; times in seconds."""

    seconds: Fraction = Fraction(60)
    fps: Fraction = Fraction(30000, 1001)
    width: int = 1280
    height: int = 720
    #: Where the scene changes, off the whole seconds so that no cut falls on a flash.
    cuts: Sequence[float] = field(default=(5.4, 11.2, 16.7, 22.3, 28.6, 33.2, 45.6, 50.3, 55.7))
    #: A passage that is loud and cut fast, or None.
    loud: tuple[float, float] | None = (38.0, 44.0)
    sound: bool = True

    @property
    def timeline(self) -> Timeline:
        """The film's frames."""
        return Timeline.constant(fps=self.fps, frame_count=int(self.seconds * self.fps))

    @property
    def second_frames(self) -> list[int]:
        """The frames on show at each whole second: these flash, and a beep starts on each."""
        film = self.timeline
        whole = range(-(-film.duration_ticks // film.timescale))
        return [film.frame_at_ticks(second * film.timescale) for second in whole]

    @property
    def cut_frames(self) -> list[int]:
        """The first frame of every scene but the first, rising."""
        times = set(self.cuts)
        if self.loud is not None:
            start, end = self.loud
            times = {at for at in times if not start <= at <= end}
            times |= {start + 0.4 * k for k in range(round((end - start) / 0.4) + 1)}
        film = self.timeline
        frames = {film.frame_at_ticks(Fraction(at).limit_denominator(1000) * film.timescale) for at in times}
        return sorted(frame for frame in frames if 0 < frame < film.frame_count - 1)


def check_bits(number: int) -> int:
    """Four bits over the number's nibbles; neither an all-dark nor an all-light code is valid."""
    check = 0b1001
    for shift in range(0, NUMBER_BITS, 4):
        check = (check * 3 + (number >> shift & 0b1111)) & 0b1111
    return check


def _bar_row(number: int, width: int) -> Plane:
    value = (0b10 << NUMBER_BITS | number) << CHECK_BITS | check_bits(number)
    bits = np.array([value >> (CELLS - 1 - cell) & 1 for cell in range(CELLS)], dtype=np.uint8)
    cells = np.arange(width) * CELLS // width
    return np.where(bits[cells] == 1, 235, 16).astype(np.uint8)


def read_frame_number(gray: Plane) -> int | None:
    """The number that a decoded frame (luma, rows × columns, any size) carries; None if unreadable."""
    height, width = gray.shape
    top, bottom = height - int(height * BAR_HEIGHT * Fraction(3, 4)), height - int(height * BAR_HEIGHT / 4)
    levels = gray[top : max(bottom, top + 1)].mean(axis=0)
    edges = [cell * width / CELLS for cell in range(CELLS + 1)]
    means = []
    for start, end in pairwise(edges):
        inset = (end - start) / 4
        means.append(float(levels[int(start + inset) : max(int(end - inset), int(start + inset) + 1)].mean()))
    white, black = means[0], means[1]
    if white - black < 64:
        return None
    value = 0
    for mean in means[2:]:
        value = value << 1 | (mean > (white + black) / 2)
    number, check = value >> CHECK_BITS, value & (1 << CHECK_BITS) - 1
    return number if check == check_bits(number) else None


def _digit(value: int, size: int) -> Plane:
    """One seven-segment digit, `size` wide and twice as high, with a margin."""
    stroke = max(size // 6, 1)
    low, high, middle = stroke, size - stroke, size
    glyph = np.full((2 * size, size), 16, dtype=np.uint8)
    boxes = (
        (low, low + stroke, low, high),
        (low, middle, low, low + stroke),
        (low, middle, high - stroke, high),
        (middle - stroke // 2, middle - stroke // 2 + stroke, low, high),
        (middle, 2 * size - low, low, low + stroke),
        (middle, 2 * size - low, high - stroke, high),
        (2 * size - low - stroke, 2 * size - low, low, high),
    )
    for lit, (top, bottom, left, right) in zip(STROKES[value], boxes, strict=True):
        if lit == "1":
            glyph[top:bottom, left:right] = 235
    return glyph


class Painter:
    """Paints the frames of one film as planar YUV 4:2:0."""

    def __init__(self, spec: FilmSpec) -> None:
        self._spec = spec
        self._film = spec.timeline
        self._flashes = frozenset(spec.second_frames)
        self._cuts = spec.cut_frames
        self._bar_top = spec.height - int(spec.height * BAR_HEIGHT)
        size = spec.height // 18 // 2 * 2
        self._digits = [_digit(value, size) for value in range(10)]
        columns, rows = np.arange(2 * spec.width), np.arange(self._bar_top)[:, None]
        wave_x = 40 * np.sin(columns * 2 * np.pi * 4 / spec.width)
        wave_y = 30 * np.sin(rows * 2 * np.pi * 3 / spec.height)
        self._texture = (wave_x + wave_y).astype(np.int16)
        self._tinted: dict[int, tuple[Plane, bytes]] = {}

    def _scene(self, scene: int) -> tuple[Plane, bytes]:
        """The scene's wide background and its finished colour planes."""
        look = scene % 12
        if look not in self._tinted:
            level = 60 + 97 * look % 128
            luma = (self._texture * (1 if look % 2 else -1) + level).clip(16, 235).astype(np.uint8)
            quarter = (self._spec.width // 2) * (self._spec.height // 2)
            chroma = bytes([64 + 53 * look % 128]) * quarter + bytes([64 + 89 * look % 128]) * quarter
            self._tinted[look] = luma, chroma
        return self._tinted[look]

    def frame(self, number: int) -> bytes:
        """The picture of one frame."""
        spec = self._spec
        scene = int(np.searchsorted(self._cuts, number, side="right"))
        background, chroma = self._scene(scene)
        luma = np.empty((spec.height, spec.width), dtype=np.uint8)
        if number in self._flashes:
            luma[: self._bar_top] = 235
        else:
            shift = number * (2 + 3 * (scene % 3)) % spec.width
            luma[: self._bar_top] = background[:, shift : shift + spec.width]
        self._clock(luma, number)
        luma[self._bar_top :] = _bar_row(number, spec.width)
        return luma.tobytes() + chroma

    def _clock(self, luma: Plane, number: int) -> None:
        """Hours, minutes, seconds and the frame's number, as digits."""
        seconds = self._film.pts(number) // self._film.timescale
        text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02} {number:06}"
        high, wide = self._digits[0].shape
        x, y = wide, wide
        for letter in text:
            if letter.isdigit():
                luma[y : y + high, x : x + wide] = self._digits[int(letter)]
            x += wide if letter.isdigit() else wide // 2


def paint_sound(spec: FilmSpec) -> Sound:
    """The film's sound, mono at 48 kHz: quiet hum, beeps, and the loud passage's noise below 400 Hz."""
    film = spec.timeline
    total = -(-film.duration_ticks * SAMPLE_RATE // film.timescale)
    at = np.arange(total, dtype=np.float32) / SAMPLE_RATE
    sound: Sound = (0.01 * np.sin(2 * np.pi * 110 * at)).astype(np.float32)
    if spec.loud is not None:
        start, end = (int(edge * SAMPLE_RATE) for edge in spec.loud)
        for hz in (131, 181, 233, 307, 383):
            sound[start:end] += (0.1 * np.sin(2 * np.pi * hz * at[start:end] + hz)).astype(np.float32)
    length = int(BEEP_SECONDS * SAMPLE_RATE)
    beep = (0.4 * np.sin(2 * np.pi * BEEP_HZ * np.arange(length) / SAMPLE_RATE)).astype(np.float32)
    for frame in spec.second_frames:
        start = round(film.pts(frame) * SAMPLE_RATE / film.timescale)
        room = min(length, total - start)
        sound[start : start + room] += beep[:room]
    return sound


def find_flashes(lumas: Sequence[float]) -> list[int]:
    """The indexes of the frames that flash, given each frame's mean luma above the bar code."""
    return [
        index
        for index, level in enumerate(lumas)
        if level > 200
        and (index == 0 or lumas[index - 1] < 200)
        and (index + 1 == len(lumas) or lumas[index + 1] < 200)
    ]


def picture_level(gray: Plane) -> float:
    """The mean luma of a frame above its bar code and below its clock, for `find_flashes`."""
    height = gray.shape[0]
    return float(gray[height // 4 : height - int(height * BAR_HEIGHT) - 2].mean())


def find_beeps(sound: Sound, rate: int = SAMPLE_RATE) -> list[float]:
    """When beeps start, in seconds from the first sample (mono, −1…1); good to about a millisecond.

    A beep shows as a 1 kHz component in a sliding 4 ms window; its start is where that crosses half its
    height.
    """
    window = rate // 250
    turning = np.exp(-2j * np.pi * BEEP_HZ * np.arange(len(sound)) / rate)
    summed = np.concatenate([np.zeros(1, dtype=np.complex128), np.cumsum(sound * turning)])
    level = np.abs(summed[window:] - summed[:-window]) * 2 / window
    above = level > 0.2
    rises = np.flatnonzero(above[1:] & ~above[:-1]) + 1
    if len(above) and above[0]:
        rises = np.concatenate([[0], rises])
    starts: list[float] = []
    for rise in rises:
        start = 0.0 if rise == 0 else (int(rise) + window / 2) / rate
        if not starts or start - starts[-1] > 4 * BEEP_SECONDS:
            starts.append(start)
    return starts


def _write_wave(path: Path, sound: Sound) -> None:
    pcm = (sound.clip(-1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.repeat(pcm, 2).tobytes())


def _command(spec: FilmSpec, wav: Path | None, out: Path) -> list[str]:
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    argv += ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", f"{spec.width}x{spec.height}"]
    argv += ["-framerate", str(spec.fps), "-i", "pipe:0"]
    if wav is not None:
        argv += ["-i", str(wav), "-c:a", "aac", "-b:a", "160k"]
    # Quick, yet with B-frames and an open GOP, so that it is as awkward to cut as a real source.
    argv += ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-crf", "16", "-g", "90"]
    argv += ["-x264-params", "open-gop=1", "-movflags", "+faststart", str(out)]
    return argv


def frames(spec: FilmSpec) -> Iterator[bytes]:
    """Every frame of the film, as planar YUV 4:2:0."""
    painter = Painter(spec)
    for number in range(spec.timeline.frame_count):
        yield painter.frame(number)


async def make_film(out: Path, spec: FilmSpec | None = None) -> FilmSpec:
    """Writes the film to `out` (the suffix chooses the container) and returns what it holds.

    Raises `RuntimeError` with FFmpeg's own words when it fails.
    """
    spec = spec or FilmSpec()
    with temporary("film") as scratch:
        wav = scratch / "sound.wav" if spec.sound else None
        if wav is not None:
            await asyncio.to_thread(_write_wave, wav, paint_sound(spec))
        pipe: dict[str, Any] = {"stdin": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        child = await asyncio.create_subprocess_exec(*_command(spec, wav, out), **pipe)
        assert child.stdin is not None
        try:
            for picture in frames(spec):
                child.stdin.write(picture)
                await child.stdin.drain()
            child.stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            if child.stdin is not None:
                child.stdin.close()
        _, stderr = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"ffmpeg could not make the film: {stderr.decode(errors='replace')[-500:]}")
    return spec
