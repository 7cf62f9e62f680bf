from __future__ import annotations

import pytest

from bench.encode import efficiency
from bench.report import Report, Row, conditions


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row(name="a", value=4.9, unit="s", goal="<=5"), True),
        (Row(name="a", value=5.1, unit="s", goal="<=5"), False),
        (Row(name="a", value=99.0, unit="s", peer="nginx", ratio=1.04, goal="<=1.05"), True),
        (Row(name="a", value=0.1, unit="s", peer="nginx", ratio=1.06, goal="<=1.05"), False),
        (Row(name="a", value=7.0, unit="x", goal=">=7"), True),
        (Row(name="a", value=7.0, unit="x"), None),
    ],
    ids=["value held", "value missed", "ratio held", "ratio missed", "at least", "no goal"],
)
def test_a_goal_holds_for_the_ratio_and_without_one_for_the_value(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_the_json_has_exactly_the_agreed_fields() -> None:
    report = Report(bench="startup", rows=[Row(name="page", value=1.23456, unit="s", goal="<=5")])

    assert report.as_dict() == {
        "bench": "startup",
        "rows": [{"name": "page", "value": 1.235, "unit": "s", "peer": None, "ratio": None, "goal": "<=5"}],
        "conditions": {},
    }


def test_conditions_state_cores_and_congestion_control() -> None:
    stated = conditions(rounds=5)

    assert stated["rounds"] == 5
    assert {"cores", "congestion_control", "kernel", "load_before"} <= stated.keys()


def test_work_in_equal_pieces_keeps_all_workers_busy_and_one_long_piece_does_not() -> None:
    assert efficiency([1.0] * 80, 8) == 1.0
    assert efficiency([8.0, *[1.0] * 8], 8) == 16 / (8 * 8)
    assert efficiency([1.0, 2.0, 3.0], 1) == 1.0
