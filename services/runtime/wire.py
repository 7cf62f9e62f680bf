"""Moments and lengths on the wire."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """A moment, which must know its zone."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def duration(ns: int) -> Duration:
    """A length or an offset, from nanoseconds."""
    length = Duration()
    length.FromNanoseconds(ns)
    return length


def timestamp_or_none(moment: datetime | None) -> Timestamp | None:
    """A moment that may not have come; a message's field is then not set."""
    return None if moment is None else timestamp(moment)
