"""Shared messages of the contracts in the domain's terms."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from kino.media.v1 import media_pb2 as media
from services.media.time import FrameRun, Timeline
from services.runtime.errors import InvalidArgument


def fraction_of(message: media.Rational, field: str) -> Fraction:
    """A fraction that must be positive; raises `InvalidArgument` naming `field`."""
    if message.numerator <= 0 or message.denominator <= 0:
        raise InvalidArgument(field, "must be positive")
    return Fraction(message.numerator, message.denominator)


def frame_runs_message(runs: Iterable[FrameRun]) -> list[media.FrameRun]:
    """Run lengths on the wire."""
    return [media.FrameRun(count=run.count, duration_ticks=run.duration_ticks, held=run.held) for run in runs]


def frame_runs_of(messages: Iterable[media.FrameRun]) -> tuple[FrameRun, ...]:
    """Run lengths. Raises `ValueError` when they make no sense."""
    return tuple(
        FrameRun(count=run.count, duration_ticks=run.duration_ticks, held=run.held) for run in messages
    )


def timeline_of(message: media.Timeline) -> Timeline:
    """All frames; raises `InvalidArgument` when there are none."""
    if not message.frame_runs or message.timescale <= 0:
        raise InvalidArgument("timeline", "has no frames")
    return Timeline(timescale=message.timescale, runs=frame_runs_of(message.frame_runs))
