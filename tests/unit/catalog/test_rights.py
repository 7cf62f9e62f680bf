from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.catalog.rights import Availability, Right, Window, availability, checked
from services.runtime.errors import InvalidArgument

NOW = datetime(2025, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def test_without_windows_a_title_is_available_everywhere_for_ever() -> None:
    for region in ("DE", ""):
        assert availability((), region, NOW) == Availability(right=Right.AVAILABLE, region=region)


@pytest.mark.parametrize(
    ("start", "end", "right", "change"),
    [
        (NOW, NOW + DAY, Right.AVAILABLE, NOW + DAY),
        (None, NOW + DAY, Right.AVAILABLE, NOW + DAY),
        (NOW - DAY, None, Right.AVAILABLE, None),
        (NOW + DAY, None, Right.UPCOMING, NOW + DAY),
        (None, NOW, Right.EXPIRED, None),
    ],
)
def test_a_window_holds_from_its_start_until_before_its_end(
    start: datetime | None, end: datetime | None, right: Right, change: datetime | None
) -> None:
    found = availability([Window(start=start, end=end)], "DE", NOW)
    assert (found.right, found.change_time) == (right, change)


@pytest.mark.parametrize(("region", "right"), [("DE", Right.AVAILABLE), ("FR", Right.OUTSIDE_REGION)])
def test_a_window_with_regions_holds_only_there(region: str, right: Right) -> None:
    assert availability([Window(regions=("DE", "AT"))], region, NOW).right is right


def test_an_unknown_region_is_inside_worldwide_windows_only() -> None:
    assert availability([Window(regions=("DE",))], "", NOW).right is Right.OUTSIDE_REGION
    assert availability([Window(regions=("DE",)), Window()], "", NOW).right is Right.AVAILABLE


def test_windows_that_follow_each_other_without_a_gap_are_one() -> None:
    later = [Window(start=NOW + DAY, end=NOW + 3 * DAY), Window(start=NOW - DAY, end=NOW + 2 * DAY)]
    apart = Window(start=NOW + 4 * DAY, end=NOW + 5 * DAY)
    assert availability([apart, *later], "DE", NOW).change_time == NOW + 3 * DAY
    assert availability([*later, Window(start=NOW)], "DE", NOW).change_time is None


def test_a_window_must_last() -> None:
    with pytest.raises(InvalidArgument):
        checked([Window(start=NOW, end=NOW)])
