from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.encoder.command import _sync_times
from services.encoder.model import Chunk
from services.media.time import FrameRun


@given(
    start=st.integers(min_value=0, max_value=500_000),
    rate=st.sampled_from([(30_000, 1001), (24_000, 1001), (25, 1)]),
)
def test_a_forced_key_frame_never_slips_past_the_frame_it_is_for(start: int, rate: tuple[int, int]) -> None:
    timescale, ticks = rate
    chunk = Chunk(
        number=1,
        start_ticks=start * ticks,
        timescale=timescale,
        runs=(FrameRun(count=150, duration_ticks=ticks),),
        previous_frame_ticks=ticks if start else 0,
        decode_delay_ticks=0,
    )
    times = [Fraction(text) * timescale / ticks for text in _sync_times(chunk).split(",")]

    # A key frame goes to the first frame at or after the time that is forced.
    assert [-(-time // 1) - start for time in times] == chunk.sync_frames
