from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.preprocessor.model import TrialPoint
from services.preprocessor.pertitle import (
    MOST_OF_A_SIZE,
    MOST_SHARE,
    WORST_CRF,
    choose_rungs,
    in_words,
)

SIZES = ["h264-1080", "h264-720", "h264-480", "h264-360", "h264-240"]


def points(*sizes: tuple[str, int, float, int, float]) -> list[TrialPoint]:
    """Each size with bits and VMAF at CRF 20 and at CRF 32."""
    return [
        TrialPoint(rendition_id=size, crf=crf, bits_per_second=bits, vmaf=vmaf)
        for size, fine, good, coarse, poor in sizes
        for crf, bits, vmaf in ((20.0, fine, good), (32.0, coarse, poor))
    ]


#: A live-action film: fine detail is lost below its own size.
DETAILED = points(
    ("h264-1080", 6_000_000, 98, 1_200_000, 82),
    ("h264-720", 3_000_000, 89, 650_000, 73),
    ("h264-480", 1_400_000, 82, 330_000, 66),
    ("h264-360", 900_000, 72, 210_000, 56),
    ("h264-240", 450_000, 56, 110_000, 40),
)
#: A drawn film: 720 lines look like 1080 and cost a fifth.
DRAWN = points(
    ("h264-1080", 5_000_000, 98, 1_700_000, 93),
    ("h264-720", 900_000, 97, 300_000, 90),
    ("h264-480", 500_000, 88, 170_000, 80),
    ("h264-360", 350_000, 78, 120_000, 70),
    ("h264-240", 180_000, 62, 70_000, 52),
)


def test_a_detailed_film_keeps_its_size_and_gets_fewer_bits_step_by_step() -> None:
    chosen = choose_rungs(DETAILED, SIZES)
    assert chosen[0].rendition_id == "h264-1080"
    assert abs(chosen[0].vmaf - 95) < 0.5
    bits = [one.bits_per_second for one in chosen]
    assert all(lower <= MOST_SHARE * upper for upper, lower in pairwise(bits))
    assert len(chosen) >= 4


def test_a_size_that_gains_nothing_is_left_out_and_the_reason_names_it() -> None:
    chosen = choose_rungs(DRAWN, SIZES)
    assert chosen[0].rendition_id == "h264-720"
    assert "Left out, as another size reaches as much with no more bits: h264-1080" in in_words(chosen, SIZES)


def test_a_film_that_misses_the_best_quality_at_any_size_gets_the_best_that_was_tried() -> None:
    grainy = points(
        ("h264-480", 2_000_000, 80, 500_000, 60),
        ("h264-240", 600_000, 50, 150_000, 30),
    )
    chosen = choose_rungs(grainy, SIZES[2:])
    assert (chosen[0].rendition_id, chosen[0].crf) == ("h264-480", 20.0)


def test_a_size_that_is_best_for_two_steps_of_quality_gets_two_rungs_and_no_more() -> None:
    large, small = ("h264-720", 2_000_000, 96, 450_000, 60), ("h264-480", 1_900_000, 80, 300_000, 57)
    chosen = choose_rungs(points(large, small), SIZES[1:3])
    assert [one.rendition_id for one in chosen] == ["h264-720", "h264-720", "h264-480"]


def test_quality_between_the_tried_is_read_off_the_nearest_two() -> None:
    bent = [
        TrialPoint(rendition_id="h264-720", crf=crf, bits_per_second=bits, vmaf=vmaf)
        for crf, bits, vmaf in ((20.0, 2_000_000, 96.0), (26.0, 1_000_000, 91.0), (32.0, 500_000, 79.0))
    ]
    best, second = choose_rungs(bent, ["h264-720"])
    assert (best.crf, best.vmaf) == (21.2, 95)
    assert (second.crf, second.vmaf) == (27.0, 89)
    assert 890_000 < second.bits_per_second < 892_000


def test_without_points_nothing_is_chosen() -> None:
    assert choose_rungs([], SIZES) == []


bits = st.integers(1_000, 20_000_000)
scores = st.floats(0, 100, allow_nan=False)


@given(st.lists(st.tuples(bits, scores, bits, scores), min_size=1, max_size=5))
def test_any_measurement_gives_sane_rungs(measured: list[tuple[int, float, int, float]]) -> None:
    sizes = SIZES[-len(measured) :]
    chosen = choose_rungs(points(*((size, *one) for size, one in zip(sizes, measured, strict=True))), sizes)
    assert chosen
    names = [one.rendition_id for one in chosen]
    assert names == sorted(names, key=sizes.index)
    assert all(names.count(name) <= MOST_OF_A_SIZE for name in names)
    for one in chosen:
        assert 20 <= one.crf <= WORST_CRF
        assert math.isfinite(one.bits_per_second)
    for upper, lower in pairwise(chosen):
        assert lower.bits_per_second <= MOST_SHARE * upper.bits_per_second
