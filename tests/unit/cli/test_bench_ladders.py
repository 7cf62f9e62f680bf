from __future__ import annotations

import pytest

from bench.encode_apple import Point, bytes_ratio

_APPLE = [
    Point(size_bytes=100, vmaf=40.0),
    Point(size_bytes=250, vmaf=66.0),
    Point(size_bytes=500, vmaf=80.0),
    Point(size_bytes=2000, vmaf=95.0),
]


def _times(factor: float) -> list[Point]:
    return [Point(size_bytes=int(point.size_bytes * factor), vmaf=point.vmaf) for point in _APPLE]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_same_curve_with_so_many_times_the_bytes_has_that_ratio(factor: float) -> None:
    assert bytes_ratio(_times(factor), _APPLE) == pytest.approx(factor)


def test_a_rung_that_costs_more_and_shows_less_counts_for_nothing() -> None:
    worse = Point(size_bytes=3000, vmaf=94.0)

    assert bytes_ratio(_times(0.5), [*_APPLE, worse]) == bytes_ratio(_times(0.5), _APPLE)


def test_only_the_vmaf_that_both_reach_is_compared() -> None:
    beyond = [*_times(0.5), Point(size_bytes=50_000, vmaf=99.0)]

    # The slope at 95 depends a little on what follows.
    assert bytes_ratio(beyond, _APPLE) == pytest.approx(0.5, rel=0.05)


def test_between_two_points_the_logarithm_of_the_bytes_is_even() -> None:
    ours = [Point(size_bytes=100, vmaf=50.0), Point(size_bytes=400, vmaf=90.0)]
    theirs = [Point(size_bytes=100, vmaf=50.0), Point(size_bytes=100, vmaf=50.0)]
    flat = [Point(size_bytes=200, vmaf=50.0), Point(size_bytes=201, vmaf=90.0)]

    assert bytes_ratio(ours, theirs) is None
    assert bytes_ratio(ours, flat) == pytest.approx(1.0, rel=0.01)


def test_ladders_without_common_vmaf_are_not_compared() -> None:
    assert bytes_ratio([Point(size_bytes=9, vmaf=97.0), Point(size_bytes=10, vmaf=98.0)], _APPLE) is None
