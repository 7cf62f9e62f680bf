from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cli.capacity import DAYS_PER_MONTH, Price, read_prices
from cli.edge_cost import PRICES, Line, Traffic, lines
from cli.gateway import packaged
from services.runtime.errors import InvalidArgument

GB = 10**9
MONTH = Traffic(
    over=timedelta(days=DAYS_PER_MONTH),
    delivered_bytes=1000 * GB,
    disk_bytes=300 * GB,
    origin_bytes=100 * GB,
    origin_reads=50_000,
    disk_budget_bytes=200 * GB,
    memory_budget_bytes=10 * GB,
)
ROUND = {
    name: Price(value=value, source="made up") for name, value in zip(PRICES, (1, 2, 3, 4, 5), strict=True)
}


def by_name(traffic: Traffic) -> dict[str, Line]:
    return {line.name: line for line in lines(traffic, ROUND)}


def test_a_month_of_an_edge_by_hand() -> None:
    found = by_name(MONTH)
    costs = {name: (line.size_bytes // GB, round(line.cost_usd, 6)) for name, line in found.items()}
    assert costs == {
        "from memory": (600, 10 * 5),
        "from the disk": (300, 200 * 4),
        "from the origin": (100, 100 * 2 + 50 * 3),
        "delivered": (1000, 1000 * 1),
        "all of it": (1000, 50 + 800 + 350 + 1000),
        "without an edge": (1000, 1000 * (1 + 2)),
    }
    tiers = ("from memory", "from the disk", "from the origin")
    assert [found[name].share for name in tiers] == [0.6, 0.3, 0.1]


def test_a_node_that_delivered_nothing_has_only_standing_costs() -> None:
    idle = Traffic(
        over=MONTH.over,
        delivered_bytes=0,
        disk_bytes=0,
        origin_bytes=0,
        origin_reads=0,
        disk_budget_bytes=200 * GB,
        memory_budget_bytes=10 * GB,
    )
    assert by_name(idle)["all of it"].cost_usd == pytest.approx(850)


def test_the_prices_that_ship_have_a_date_and_a_source_each() -> None:
    as_of, prices = read_prices(packaged("cli/data/prices.toml"), PRICES)
    assert as_of[:2] == "20"
    assert all(price.value > 0 and price.source for price in prices.values())


def test_a_file_without_a_price_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text("as_of = 2026-01-01\n[edge_per_gb]\nvalue = 1\nsource = 'me'\n")
    with pytest.raises(InvalidArgument, match="origin_per_gb"):
        read_prices(tmp_path / "prices.toml", PRICES)
