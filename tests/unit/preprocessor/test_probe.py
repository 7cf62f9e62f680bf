from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.media.time import FrameRun, Timeline, run_lengths
from services.preprocessor.probe import USUAL_RATES, exact_timeline

RATES = [Fraction(0), Fraction(1000), *USUAL_RATES]


def rounded(rate: Fraction, frame_count: int, timescale: int) -> list[FrameRun]:
    """A constant rate as a container with a coarse clock has it."""
    pts = [round(frame * timescale / rate) for frame in range(frame_count + 1)]
    return list(Timeline.from_pts(timescale=timescale, pts=pts[:-1], end=pts[-1]).runs)


# Two frames may be rounded to the same length, and are a constant rate of their own.
@given(st.sampled_from(USUAL_RATES), st.integers(3, 3000), st.sampled_from([1000, 90_000]))
def test_a_constant_rate_is_found_behind_a_coarse_clock(rate: Fraction, count: int, timescale: int) -> None:
    found = exact_timeline(timescale, rounded(rate, count, timescale), [rate])
    assert found.frame_count == count
    assert found.constant_rate == rate


@given(st.lists(st.integers(8, 60), min_size=2, max_size=60))
def test_the_rate_that_fits_best_is_taken_and_none_that_is_off_by_more_than_a_tick(
    durations: list[int],
) -> None:
    runs = run_lengths(durations)
    rough = Timeline(timescale=1000, runs=runs)
    off = {
        rate: max(abs(at - frame * 1000 / rate) for frame, at in enumerate(rough.all_pts()))
        for rate in USUAL_RATES
    }
    found = exact_timeline(1000, runs, RATES)
    if rough.constant_rate is not None or min(off.values()) > 1:
        assert found == rough
    else:
        assert found.constant_rate is not None
        assert off[found.constant_rate] == min(off.values())
