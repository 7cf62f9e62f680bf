from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.preprocessor.highlights import rank_highlights, standard_scores
from services.preprocessor.model import Feature, Highlight, Origin


def feature(second: int, motion: float = 1.0, cuts: int = 0, loud: float = -30.0) -> Feature:
    return Feature(
        start_ticks=second * 1000,
        duration_ticks=1000,
        motion=motion,
        shot_change_count=cuts,
        loudness_lufs=loud,
    )


CALM = [feature(second) for second in range(60)]
LOUD = [
    feature(second, motion=9.0, cuts=2, loud=-10.0) if 38 <= second < 44 else one
    for second, one in enumerate(CALM)
]
GIVEN = Highlight(start_ns=0, end_ns=5, origin=Origin.GIVEN, score=0.0, reason="given")

features = st.lists(
    st.builds(
        Feature,
        start_ticks=st.just(0),
        duration_ticks=st.just(1000),
        motion=st.floats(0, 100),
        shot_change_count=st.integers(0, 5),
        loudness_lufs=st.floats(-70, 0),
    ),
    max_size=200,
).map(
    lambda found: [
        feature(second, one.motion, one.shot_change_count, one.loudness_lufs)
        for second, one in enumerate(found)
    ]
)


def test_the_one_loud_fast_passage_is_found_to_the_second() -> None:
    found = rank_highlights(LOUD, 1000)
    assert [(h.start_ns, h.end_ns, h.origin) for h in found] == [
        (38_000_000_000, 44_000_000_000, Origin.MEASURED)
    ]
    assert found[0].score > 5


def test_the_reason_names_the_figures_against_the_whole_film() -> None:
    reason = rank_highlights(LOUD, 1000)[0].reason
    assert reason == (
        "motion 9.0 (film 1.8); cuts 120.0 a minute (film 12.0 a minute);"
        " loudness -10.0 LUFS (film -28.0 LUFS)"
    )


def test_a_film_in_which_nothing_stands_out_has_none() -> None:
    assert rank_highlights(CALM, 1000) == []


def test_given_highlights_come_first_and_unchanged() -> None:
    found = rank_highlights(LOUD, 1000, [GIVEN])
    assert (found[0], len(found)) == (GIVEN, 2)


def test_a_film_too_short_for_a_passage_has_none_of_its_own() -> None:
    assert rank_highlights(LOUD[38:42], 1000, [GIVEN]) == [GIVEN]


def test_silence_does_not_make_all_else_look_loud() -> None:
    half_silent = [feature(second, loud=-70.0 if second < 55 else -49.0) for second in range(60)]
    assert rank_highlights(half_silent, 1000) == []


@given(features)
def test_measured_highlights_never_overlap_and_fall_in_score(found: list[Feature]) -> None:
    highlights = rank_highlights(found, 1000)
    spans = sorted((h.start_ns, h.end_ns) for h in highlights)
    assert all(one[1] <= following[0] for one, following in pairwise(spans))
    assert [h.score for h in highlights] == sorted((h.score for h in highlights), reverse=True)
    assert all(6e9 <= h.end_ns - h.start_ns <= 15e9 for h in highlights)


@given(st.lists(st.floats(-1e3, 1e3), max_size=50))
def test_standard_scores_sum_to_nothing(values: list[float]) -> None:
    assert abs(sum(standard_scores(values, 0.1))) < 1e-6
