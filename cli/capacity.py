"""Capacity and cost of a Kino, as arithmetic that can be followed: `kino plan`.

Decimal units throughout (1 TB = 10^12 bytes, 1 Mb/s = 10^6 bits a second), as networks and clouds bill them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.runtime.errors import InvalidArgument

DAYS_PER_MONTH = 365 / 12
#: Peak over mean concurrency of video services that publish figures lies about here.
USUAL_PEAK_TO_MEAN = (2.0, 2.5)
_PRICES = ("edge_per_gb", "storage_per_gb_month", "core_hour")


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What is to be served. Defaults are the assumptions `ASSUMED` explains."""

    viewers: float = 10_000
    hours_per_day: float = 1.0
    mbps: float = 3.5
    peak_to_mean: float = 2.2
    #: Concurrency at the peak where it is known; else mean × `peak_to_mean`.
    peak_viewers: float | None = None
    catalogue_hours: float = 1_000
    new_hours_per_month: float = 20
    source_mbps: float = 10
    ladder_mbps: float = 9.6
    encode_core_hours: float = 4.3
    edge_share: float = 0.9
    node_gbps: float = 10
    node_fill: float = 0.7
    redundancy: float = 2
    fill_gbps: float = 1.2
    fill_hours: float = 12
    session_hours: float = 0.75
    live_view_bytes: float = 250
    old_view_bytes: float = 12.2
    serve_cpu_s_per_gib: float = 0.75
    better_encode_saves: float = 0.2


#: Where each number comes from unless the command line gives it.
SOURCES: Mapping[str, tuple[Literal["measured", "assumed"], str]] = {
    "viewers": ("assumed", "a mid-sized service"),
    "hours_per_day": ("assumed", "Netflix reports 1.7 hours a member and day (H2 2024)"),
    "mbps": ("assumed", "mean of what viewers receive; 3 to 4 is usual for 1080p catalogues"),
    "peak_to_mean": ("assumed", "evening peak over the mean of the day; 2 to 2.5 is usual"),
    "catalogue_hours": ("assumed", "a mid-sized service"),
    "new_hours_per_month": ("assumed", "2 % of the catalogue"),
    "source_mbps": ("assumed", "an H.264 mezzanine; ProRes needs twenty times that"),
    "ladder_mbps": ("measured", "Big Buck Bunny in 1080p24: five H.264 rungs, one of AV1, AAC and Opus"),
    "encode_core_hours": ("measured", "the same film and ladder, for each hour of it, on shared cloud cores"),
    "edge_share": ("assumed", "bytes that hot titles on the edge answer"),
    "node_gbps": ("assumed", "network of one edge node"),
    "node_fill": ("assumed", "how full a node's network may be at the peak"),
    "redundancy": (
        "assumed",
        "copies for place and failure; Open Connect's fleet is about 25 times its throughput",
    ),
    "fill_gbps": ("assumed", "Open Connect's guidance for one appliance"),
    "fill_hours": ("assumed", "the nightly window"),
    "session_hours": ("assumed", "mean length of one view"),
    "live_view_bytes": (
        "measured",
        "one view as a row with its positions, 500 views a user: 253 bytes as JSON",
    ),
    "old_view_bytes": ("measured", "columnar delta with zstd-19, 500 views a user"),
    "serve_cpu_s_per_gib": ("measured", "Envoy and the Python server, 1 MiB messages, loopback"),
    "better_encode_saves": ("assumed", "bits that a slower preset saves"),
}


@dataclass(frozen=True, kw_only=True)
class Price:
    """A price in US dollars and where it was read."""

    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the estimate."""

    name: str
    value: float
    unit: str
    #: `given`, `measured`, `assumed`, `price` or `computed`.
    origin: str
    #: The formula, or where the number comes from.
    source: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The inputs, what follows from them, and what looks inconsistent."""

    inputs: tuple[Figure, ...]
    figures: tuple[Figure, ...]
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> float:
        """A computed figure by its name. Raises `KeyError`."""
        return {figure.name: figure.value for figure in self.figures}[name]


def hours_gb(hours: float, mbps: float) -> float:
    """Size of `hours` of film at `mbps`, in GB."""
    return hours * 3600 * mbps / 8 / 1000


def fill_tb(gbps: float, hours: float) -> float:
    """What a link of `gbps` carries in a window of `hours`, in TB."""
    return gbps * hours * 3600 / 8 / 1000


def nodes(tbps: float, node_gbps: float, node_fill: float = 1.0, redundancy: float = 1.0) -> float:
    """How many nodes carry `tbps`, before rounding up."""
    return tbps * 1000 / (node_gbps * node_fill) * redundancy


def break_even_hours(*, encode_usd: float, saved_share: float, mbps: float, edge_per_gb: float) -> float:
    """After how many viewed hours one hour of film, encoded anew for `encode_usd`, has paid for that."""
    return encode_usd / (saved_share * hours_gb(1, mbps) * edge_per_gb)


def read_prices(path: Path, names: Sequence[str] = _PRICES) -> tuple[str, dict[str, Price]]:
    """The date and the prices of a file. Raises `InvalidArgument` that names what is wrong."""
    try:
        values = tomllib.loads(path.read_text())
        prices = {
            name: Price(value=float(values[name]["value"]), source=str(values[name]["source"]))
            for name in names
        }
        return str(values["as_of"]), prices
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        problem = f"{path} can't be used: {error}. It needs as_of and {', '.join(names)}."
        raise InvalidArgument("prices", problem) from None


def estimate(demand: Demand, prices: Mapping[str, Price], *, given: frozenset[str] = frozenset()) -> Estimate:
    """All figures that follow from `demand`; `given` names the inputs that the person chose."""
    figures = [*_load(demand), *_storage(demand), *_history(demand)]
    known = {figure.name: figure.value for figure in figures}
    figures += _money(demand, prices, known)
    return Estimate(
        inputs=_inputs(demand, prices, given), figures=tuple(figures), warnings=_warnings(demand, known)
    )


def _computed(name: str, value: float, unit: str, formula: str) -> Figure:
    return Figure(name=name, value=value, unit=unit, origin="computed", source=formula)


def _load(demand: Demand) -> list[Figure]:
    daily_hours = demand.viewers * demand.hours_per_day
    mean = daily_hours / 24
    peak = demand.peak_viewers or mean * demand.peak_to_mean
    peak_tbps = peak * demand.mbps / 1e6
    edge_nodes = nodes(peak_tbps * demand.edge_share, demand.node_gbps, demand.node_fill, demand.redundancy)
    cores = peak_tbps * 1e12 / 8 / (1 << 30) * demand.serve_cpu_s_per_gib
    return [
        _computed("viewed hours a day", daily_hours, "h", "viewers × hours_per_day"),
        _computed("mean streams", mean, "", "viewed hours a day / 24"),
        _computed("peak streams", peak, "", "peak_viewers, or mean streams × peak_to_mean"),
        _computed("peak traffic", peak_tbps, "Tb/s", "peak streams × mbps"),
        _computed("mean traffic", mean * demand.mbps / 1e6, "Tb/s", "mean streams × mbps"),
        _computed(
            "data a viewer and day", hours_gb(demand.hours_per_day, demand.mbps), "GB", "hours_per_day × mbps"
        ),
        _computed(
            "traffic a month",
            hours_gb(daily_hours * DAYS_PER_MONTH, demand.mbps) / 1000,
            "TB",
            "viewed hours a day × 30.4 × mbps",
        ),
        _computed(
            "edge nodes",
            edge_nodes,
            "",
            "peak traffic × edge_share / (node_gbps × node_fill) × redundancy",
        ),
        _computed(
            "fill of a node a day",
            fill_tb(demand.fill_gbps, demand.fill_hours),
            "TB",
            "fill_gbps × fill_hours",
        ),
        _computed("cores that serve the peak", cores, "", "peak traffic in GiB/s × serve_cpu_s_per_gib"),
    ]


def _storage(demand: Demand) -> list[Figure]:
    sources = hours_gb(demand.catalogue_hours, demand.source_mbps) / 1000
    renditions = hours_gb(demand.catalogue_hours, demand.ladder_mbps) / 1000
    growth = hours_gb(demand.new_hours_per_month, demand.source_mbps + demand.ladder_mbps) / 1000
    core_hours = demand.new_hours_per_month * demand.encode_core_hours
    return [
        _computed("sources", sources, "TB", "catalogue_hours × source_mbps"),
        _computed("renditions", renditions, "TB", "catalogue_hours × ladder_mbps"),
        _computed("origin", sources + renditions, "TB", "sources + renditions"),
        _computed(
            "origin's growth a month", growth, "TB", "new_hours_per_month × (source_mbps + ladder_mbps)"
        ),
        _computed("encoding a month", core_hours, "core-hours", "new_hours_per_month × encode_core_hours"),
    ]


def _history(demand: Demand) -> list[Figure]:
    views = demand.viewers * demand.hours_per_day / demand.session_hours
    recent_gb = views * DAYS_PER_MONTH * demand.live_view_bytes / 1e9
    year_gb = views * 365 * demand.old_view_bytes / 1e9
    return [
        _computed("views a day", views, "", "viewed hours a day / session_hours"),
        _computed("recent history", recent_gb, "GB", "views a day × 30.4 × live_view_bytes"),
        _computed("old history a year", year_gb, "GB", "views a day × 365 × old_view_bytes"),
    ]


def _money(demand: Demand, prices: Mapping[str, Price], known: Mapping[str, float]) -> list[Figure]:
    edge, storage, core = (prices[name].value for name in _PRICES)
    delivery = known["traffic a month"] * 1000 * edge
    kept = known["origin"] * 1000 * storage
    encoding = known["encoding a month"] * core
    even = break_even_hours(
        encode_usd=demand.encode_core_hours * core,
        saved_share=demand.better_encode_saves,
        mbps=demand.mbps,
        edge_per_gb=edge,
    )
    return [
        _computed("delivery", delivery, "USD a month", "traffic a month × edge_per_gb"),
        _computed("storage", kept, "USD a month", "origin × storage_per_gb_month"),
        _computed("encoding", encoding, "USD a month", "encoding a month × core_hour"),
        _computed("all of it", delivery + kept + encoding, "USD a month", "delivery + storage + encoding"),
        _computed(
            "cost of a viewed hour",
            hours_gb(1, demand.mbps) * edge,
            "USD",
            "mbps × 1 h × edge_per_gb",
        ),
        _computed(
            "encoding better pays from",
            even,
            "viewed hours",
            "encode_core_hours × core_hour / (better_encode_saves × cost of a viewed hour), an hour of film",
        ),
    ]


_UNITS: Mapping[str, str] = {
    "hours_per_day": "h",
    "mbps": "Mb/s",
    "catalogue_hours": "h",
    "new_hours_per_month": "h",
    "source_mbps": "Mb/s",
    "ladder_mbps": "Mb/s",
    "encode_core_hours": "core-hours",
    "node_gbps": "Gb/s",
    "fill_gbps": "Gb/s",
    "fill_hours": "h",
    "session_hours": "h",
    "live_view_bytes": "bytes",
    "old_view_bytes": "bytes",
    "serve_cpu_s_per_gib": "s",
}


def _inputs(demand: Demand, prices: Mapping[str, Price], given: frozenset[str]) -> tuple[Figure, ...]:
    inputs = []
    for name, (origin, source) in SOURCES.items():
        chosen: tuple[str, str] = ("given", "command line") if name in given else (origin, source)
        value = float(getattr(demand, name))
        inputs.append(
            Figure(name=name, value=value, unit=_UNITS.get(name, ""), origin=chosen[0], source=chosen[1])
        )
    if demand.peak_viewers is not None:
        inputs.append(
            Figure(
                name="peak_viewers", value=demand.peak_viewers, unit="", origin="given", source="command line"
            )
        )
    inputs += [
        Figure(name=name, value=price.value, unit="USD", origin="price", source=price.source)
        for name, price in prices.items()
    ]
    return tuple(inputs)


def _warnings(demand: Demand, known: Mapping[str, float]) -> tuple[str, ...]:
    found = []
    low, high = USUAL_PEAK_TO_MEAN
    ratio = known["peak streams"] / known["mean streams"] if known["mean streams"] else low
    if not low * 0.8 <= ratio <= high * 1.5:
        found.append(
            f"A peak of {known['peak streams']:,.0f} streams is {ratio:.1f} times the mean of "
            f"{known['mean streams']:,.0f}; {low:g} to {high:g} is usual, so one is probably wrong."
        )
    if known["peak streams"] > demand.viewers:
        found.append("More streams at the peak than viewers: hours a day or the peak are too high.")
    if demand.hours_per_day > 24:
        found.append("A day has 24 hours.")
    return tuple(found)
