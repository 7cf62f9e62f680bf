from __future__ import annotations

import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.history.intervals import Intervals, bounded, clipped, length, union
from services.history.model import MAX_OFFSET_NS, Key, Order, Report, View
from services.runtime.errors import InvalidArgument

NOW = datetime(2025, 3, 1, tzinfo=UTC)
SECOND = 1_000_000_000
KEY = Key(profile="users/ann/profiles/kids", title="titles/solaris")

intervals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(lambda i: i[0] < i[1]), max_size=8
)


def report(**fields: object) -> Report:
    made = Report(
        key=KEY,
        order=Order(start_time=NOW, lease="leases/a", sequence=1),
        position_ns=5 * SECOND,
        intervals=((0, 5 * SECOND),),
        duration_ns=100 * SECOND,
        device="tv",
        receive_time=NOW,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


reports = st.builds(
    lambda start, lease, sequence, heard, position, watched: report(
        order=Order(start_time=NOW + timedelta(seconds=start), lease=f"leases/{lease}", sequence=sequence),
        receive_time=NOW + timedelta(seconds=heard),
        position_ns=position,
        intervals=tuple(watched),
    ),
    st.integers(0, 3),
    st.sampled_from("ab"),
    st.integers(1, 4),
    st.integers(0, 9),
    st.integers(0, 60),
    intervals,
)
views = reports.map(View.of)


def points(watched: Intervals) -> set[int]:
    return {at for start, end in watched for at in range(start, end)}


@given(intervals, intervals)
def test_a_union_holds_what_either_holds_and_is_normal(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    both = union(one, two)
    assert points(both) == points(tuple(one)) | points(tuple(two))
    assert all(start < end for start, end in both)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(both))
    assert length(both) == len(points(both))


@given(intervals, st.integers(0, 60))
def test_clipping_keeps_what_lies_before_the_end(watched: list[tuple[int, int]], end: int) -> None:
    assert points(clipped(union(watched), end)) == {at for at in points(union(watched)) if at < end}


@given(intervals, st.integers(1, 4))
def test_a_bound_closes_gaps_and_loses_nothing(watched: list[tuple[int, int]], limit: int) -> None:
    before = union(watched)
    after = bounded(before, limit)
    assert len(after) <= limit
    assert points(before) <= points(after)
    if len(before) <= limit:
        assert after == before


def test_a_bound_closes_all_gaps_under_a_second_and_then_the_smallest() -> None:
    gaps = [SECOND - 1, SECOND, 3 * SECOND, 2 * SECOND, SECOND - 1]
    watched, at = [], 0
    for gap in [*gaps, 0]:
        watched.append((at, at + 1))
        at += 1 + gap
    two_gaps_left = bounded(tuple(watched), 4)
    assert [after[0] - before[1] for before, after in itertools.pairwise(two_gaps_left)] == [
        SECOND,
        3 * SECOND,
        2 * SECOND,
    ]
    one_gap_left = bounded(tuple(watched), 2)
    assert [after[0] - before[1] for before, after in itertools.pairwise(one_gap_left)] == [3 * SECOND]


@given(views, views)
def test_the_order_of_two_views_does_not_matter(one: View, two: View) -> None:
    assert one.merged(two) == two.merged(one)


@given(views, views, views)
def test_grouping_does_not_matter(one: View, two: View, three: View) -> None:
    assert one.merged(two).merged(three) == one.merged(two.merged(three))


@given(views, views)
def test_saying_it_twice_changes_nothing(one: View, two: View) -> None:
    both = one.merged(two)
    assert both.merged(one) == both.merged(two) == both.merged(both) == both


@given(st.lists(reports, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_reports_in_any_order_any_number_of_times_give_one_view(
    heard: list[Report], chance: random.Random
) -> None:
    shuffled = heard + chance.choices(heard, k=5)
    chance.shuffle(shuffled)
    in_order, mixed = (reduce(View.merged, map(View.of, some)) for some in (heard, shuffled))
    assert mixed == in_order
    assert in_order.position_ns in {
        one.position_ns for one in heard if one.order == max(r.order for r in heard)
    }


def test_the_playback_started_last_says_where_it_stopped_whatever_the_numbers_of_others() -> None:
    old = report(order=Order(start_time=NOW, lease="leases/z", sequence=900), position_ns=80 * SECOND)
    new = report(
        order=Order(start_time=NOW + timedelta(seconds=1), lease="leases/a", sequence=1), device="phone"
    )
    view = View.of(old).merged(View.of(new))
    assert (view.position_ns, view.device) == (5 * SECOND, "phone")


def test_the_lease_decides_between_playbacks_of_the_same_instant() -> None:
    one = report(order=Order(start_time=NOW, lease="leases/a", sequence=9), position_ns=1)
    two = report(order=Order(start_time=NOW, lease="leases/b", sequence=1), position_ns=2)
    assert View.of(one).merged(View.of(two)).position_ns == 2


def test_going_back_within_a_playback_is_believed() -> None:
    ahead = report(position_ns=90 * SECOND)
    back = report(order=Order(start_time=NOW, lease="leases/a", sequence=2), position_ns=3 * SECOND)
    assert View.of(back).merged(View.of(ahead)).position_ns == 3 * SECOND


def test_a_repetition_heard_later_does_not_make_the_view_newer() -> None:
    first, again = report(), report(receive_time=NOW + timedelta(hours=5))
    assert View.of(again).merged(View.of(first)).last_watch_time == NOW


@pytest.mark.parametrize(
    ("duration_s", "position_s", "finished"),
    [
        (100, 94.9, False),  # 5 % are shorter than 30 s
        (100, 95, True),
        (6000, 5969.9, False),  # 30 s are shorter than 5 %
        (6000, 5970, True),
        (600, 569.9, False),
        (600, 570, True),
        (0, 5000, False),  # the length is not known
    ],
)
def test_a_title_is_finished_within_its_last_part(duration_s: int, position_s: float, finished: bool) -> None:
    seen = report(duration_ns=duration_s * SECOND, position_ns=int(position_s * SECOND))
    assert View.of(seen).finished is finished


@pytest.mark.parametrize(
    ("watched", "duration_s", "completion"),
    [([(0, 25), (50, 75)], 100, 0.5), ([(0, 80), (40, 200)], 100, 1.0), ([], 100, 0.0), ([(0, 9)], 0, 0.0)],
)
def test_completion_is_the_share_watched(
    watched: list[tuple[int, int]], duration_s: int, completion: float
) -> None:
    seconds = tuple((start * SECOND, end * SECOND) for start, end in watched)
    assert View.of(report(intervals=seconds, duration_ns=duration_s * SECOND)).completion == completion


def test_what_lies_beyond_the_title_is_cut_off() -> None:
    wild = report(
        position_ns=101 * SECOND, intervals=((90 * SECOND, 120 * SECOND), (100 * SECOND, 101 * SECOND))
    )
    assert wild.checked() == report(position_ns=100 * SECOND, intervals=((90 * SECOND, 100 * SECOND),))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"position_ns": -1}, "position"),
        ({"position_ns": MAX_OFFSET_NS + 1}, "position"),
        ({"intervals": ((-1, 5),)}, "intervals[0].start_offset"),
        ({"intervals": ((0, 1), (0, MAX_OFFSET_NS + 1))}, "intervals[1].end_offset"),
        ({"intervals": ((5, 5),)}, "intervals[0]"),
        ({"intervals": ((5, 4),)}, "intervals[0]"),
    ],
)
def test_what_cannot_have_been_watched_is_refused(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        report(**fields).checked()
    assert caught.value.details["field"] == field
