"""What an edge cost since it started, and what the same would have cost without it: `kino edge cost`.

Decimal units, as networks and clouds bill them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from cli.capacity import DAYS_PER_MONTH, Price

#: The prices of a file that count here.
PRICES = (
    "edge_per_gb",
    "origin_per_gb",
    "origin_per_1000_reads",
    "edge_disk_per_gb_month",
    "edge_memory_per_gb_month",
)
_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a node sent, and where it had that from."""

    over: timedelta
    delivered_bytes: int
    disk_bytes: int
    origin_bytes: int
    origin_reads: int
    disk_budget_bytes: int
    memory_budget_bytes: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the report."""

    name: str
    size_bytes: int
    #: Of what was delivered; over 1 where more was read than viewers took.
    share: float
    cost_usd: float
    #: The formula.
    source: str


def lines(traffic: Traffic, prices: Mapping[str, Price]) -> list[Line]:
    """What came from where and its cost, the sum, and the cost of the same bytes without an edge."""
    usd = {name: prices[name].value for name in PRICES}
    months = traffic.over / timedelta(days=DAYS_PER_MONTH)
    memory = max(traffic.delivered_bytes - traffic.disk_bytes - traffic.origin_bytes, 0)
    reads_usd = traffic.origin_reads / 1000 * usd["origin_per_1000_reads"]
    delivery_usd = traffic.delivered_bytes / _GB * usd["edge_per_gb"]

    def line(name: str, size_bytes: int, cost_usd: float, source: str) -> Line:
        share = size_bytes / traffic.delivered_bytes if traffic.delivered_bytes else 0.0
        return Line(name=name, size_bytes=size_bytes, share=share, cost_usd=cost_usd, source=source)

    parts = [
        line(
            "from memory",
            memory,
            traffic.memory_budget_bytes / _GB * usd["edge_memory_per_gb_month"] * months,
            "its budget × edge_memory_per_gb_month × time; bytes: delivered - disk - origin",
        ),
        line(
            "from the disk",
            traffic.disk_bytes,
            traffic.disk_budget_bytes / _GB * usd["edge_disk_per_gb_month"] * months,
            "its budget × edge_disk_per_gb_month × time",
        ),
        line(
            "from the origin",
            traffic.origin_bytes,
            traffic.origin_bytes / _GB * usd["origin_per_gb"] + reads_usd,
            "bytes × origin_per_gb + reads × origin_per_1000_reads",
        ),
        line("delivered", traffic.delivered_bytes, delivery_usd, "bytes × edge_per_gb"),
    ]
    whole = sum(part.cost_usd for part in parts)
    without = delivery_usd + traffic.delivered_bytes / _GB * usd["origin_per_gb"]
    return [
        *parts,
        line("all of it", traffic.delivered_bytes, whole, "the sum"),
        line(
            "without an edge",
            traffic.delivered_bytes,
            without,
            "delivered × (edge_per_gb + origin_per_gb), without its reads",
        ),
    ]
