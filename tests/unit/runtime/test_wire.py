from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.wire import duration, timestamp, timestamp_or_none


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_lengths_keep_every_nanosecond(ns: int) -> None:
    assert duration(ns).ToNanoseconds() == ns


def test_lengths_and_moments_are_what_the_contracts_say() -> None:
    moment = datetime(2026, 11, 23, 4, 5, 6, 789_000, tzinfo=UTC)
    assert duration(1_000_000_001) == Duration(seconds=1, nanos=1)
    assert timestamp(moment) == Timestamp(seconds=1_795_406_706, nanos=789_000_000)
    assert timestamp_or_none(moment) == timestamp(moment)
    assert timestamp_or_none(None) is None
