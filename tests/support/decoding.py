"""Reads back what was encoded, with a decoder that is not the encoder's."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np

from services.media.testfilm import (
    SAMPLE_RATE,
    Plane,
    Sound,
    find_beeps,
    picture_level,
    read_frame_number,
)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The frames of a stream: the number each carries, its time in ticks, and its brightness."""

    numbers: list[int | None]
    pts: list[int]
    levels: list[float]


def decode_pictures(data: bytes) -> Pictures:
    """Every frame of the first picture track, in the order shown."""
    numbers, pts, levels = [], [], []
    with av.open(io.BytesIO(data), "r") as container:
        for frame in container.decode(video=0):
            gray: Plane = frame.to_ndarray(format="gray").astype(np.uint8)
            numbers.append(read_frame_number(gray))
            pts.append(int(frame.pts or 0))
            levels.append(picture_level(gray))
    return Pictures(numbers=numbers, pts=pts, levels=levels)


def decode_beeps(data: bytes) -> list[float]:
    """When beeps start, in seconds on the stream's own clock."""
    sound: list[Sound] = []
    first: float | None = None
    with av.open(io.BytesIO(data), "r") as container:
        mono = av.AudioResampler("fltp", "mono", SAMPLE_RATE)
        for frame in container.decode(audio=0):
            if first is None:
                first = frame.time or 0.0
            sound += [piece.to_ndarray()[0] for piece in mono.resample(frame)]
    return [(first or 0.0) + at for at in find_beeps(np.concatenate(sound))]
