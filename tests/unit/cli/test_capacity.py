from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.capacity import (
    SOURCES,
    Demand,
    Price,
    break_even_hours,
    estimate,
    fill_tb,
    hours_gb,
    nodes,
    read_prices,
)
from cli.gateway import packaged
from services.runtime.errors import InvalidArgument

PRICES = {
    "edge_per_gb": Price(value=0.085, source="test"),
    "storage_per_gb_month": Price(value=0.023, source="test"),
    "core_hour": Price(value=0.045, source="test"),
}
NETFLIX_H2_2024 = Demand(viewers=301.63e6, hours_per_day=94e9 / 182 / 301.63e6)
INTERVIEW = Demand(viewers=100e6, hours_per_day=2, mbps=5, peak_viewers=10e6)


def test_netflix_half_year_gives_its_daily_hours_and_mean_streams() -> None:
    result = estimate(NETFLIX_H2_2024, PRICES)

    assert result["viewed hours a day"] == pytest.approx(516e6, rel=0.002)
    assert NETFLIX_H2_2024.hours_per_day == pytest.approx(1.71, abs=0.005)
    assert result["mean streams"] == pytest.approx(21.5e6, rel=0.002)
    assert result.warnings == ()


@pytest.mark.parametrize(("mbps", "mean_tbps", "peak_tbps"), [(3, 65, 142), (4, 86, 189)])
def test_netflix_traffic_lies_where_published_estimates_do(
    mbps: float, mean_tbps: float, peak_tbps: float
) -> None:
    result = estimate(replace(NETFLIX_H2_2024, mbps=mbps), PRICES)

    assert result["mean traffic"] == pytest.approx(mean_tbps, abs=0.6)
    assert result["peak traffic"] == pytest.approx(peak_tbps, abs=0.6)


def test_a_live_peak_needs_more_nodes_than_its_throughput_alone() -> None:
    result = estimate(Demand(viewers=300e6, mbps=4, peak_viewers=65e6), PRICES)

    assert result["peak traffic"] == pytest.approx(260)
    assert nodes(result["peak traffic"], 200) == pytest.approx(1300)
    assert nodes(150, 200) == pytest.approx(750)
    assert nodes(150, 200, redundancy=25) == pytest.approx(18_750)


@pytest.mark.parametrize(("gbps", "tb"), [(1.2, 6.48), (0.4, 2.16)])
def test_a_night_of_filling_carries_what_open_connect_says(gbps: float, tb: float) -> None:
    assert fill_tb(gbps, 12) == pytest.approx(tb)
    assert estimate(Demand(fill_gbps=gbps, fill_hours=12), PRICES)["fill of a node a day"] == pytest.approx(
        tb
    )


def test_the_interview_case_is_computed_and_its_contradiction_named() -> None:
    result = estimate(INTERVIEW, PRICES)

    assert result["data a viewer and day"] == pytest.approx(4.5)
    assert result["peak traffic"] == pytest.approx(50)
    assert result["mean streams"] == pytest.approx(8.33e6, rel=0.001)
    assert result.warnings == (
        "A peak of 10,000,000 streams is 1.2 times the mean of 8,333,333; 2 to 2.5 is usual, "
        "so one is probably wrong.",
    )


def test_an_hour_costs_and_better_encoding_pays_as_published_prices_say() -> None:
    result = estimate(Demand(mbps=3, encode_core_hours=100), PRICES)

    assert hours_gb(1, 3) == pytest.approx(1.35)
    assert result["cost of a viewed hour"] == pytest.approx(0.115, abs=0.0005)
    assert result["encoding better pays from"] == pytest.approx(196, abs=1)
    assert break_even_hours(encode_usd=4.5, saved_share=0.2, mbps=3, edge_per_gb=0.085) == pytest.approx(
        result["encoding better pays from"]
    )


def test_more_streams_than_viewers_is_named() -> None:
    result = estimate(Demand(viewers=1000, hours_per_day=12), PRICES)

    assert result.warnings == (
        "More streams at the peak than viewers: hours a day or the peak are too high.",
    )


def test_every_number_says_where_it_comes_from() -> None:
    result = estimate(Demand(), PRICES, given=frozenset({"viewers"}))
    origins = {figure.name: figure.origin for figure in result.inputs}

    assert SOURCES.keys() == {item.name for item in fields(Demand)} - {"peak_viewers"}
    assert origins["viewers"] == "given"
    assert origins["old_view_bytes"] == "measured"
    assert origins["edge_per_gb"] == "price"
    assert all(figure.source for figure in (*result.inputs, *result.figures))


@given(factor=st.floats(min_value=0.01, max_value=1000))
def test_traffic_and_delivery_grow_in_step_with_viewers(factor: float) -> None:
    one, many = (estimate(Demand(viewers=1e6 * times), PRICES) for times in (1, factor))

    for name in ("peak traffic", "delivery", "views a day", "edge nodes"):
        assert many[name] == pytest.approx(one[name] * factor)
    assert many["origin"] == one["origin"]


def test_the_prices_that_ship_are_dated_and_sourced() -> None:
    as_of, prices = read_prices(packaged("cli/data/prices.toml"))

    assert as_of.startswith("20")
    assert prices.keys() == PRICES.keys()
    assert all(price.value > 0 and price.source for price in prices.values())


@pytest.mark.parametrize("text", ["", "as_of = 2026-01-01", "not toml", 'as_of = 1\nedge_per_gb = "free"'])
def test_prices_that_can_not_be_used_are_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)

    with pytest.raises(InvalidArgument, match="can't be used"):
        read_prices(file)
