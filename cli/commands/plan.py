"""`kino plan`: how much of everything, what it costs, and where each number comes from."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.main import State
from cli.output import Output

if TYPE_CHECKING:
    from cli.capacity import Estimate


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(plan)


def plan(
    context: typer.Context,
    viewers: Annotated[float | None, typer.Option(min=1, help="Active viewers.")] = None,
    hours_per_day: Annotated[float | None, typer.Option(min=0, help="Hours a viewer and day.")] = None,
    mbps: Annotated[float | None, typer.Option(min=0, help="Mean bit rate received, Mb/s.")] = None,
    peak_viewers: Annotated[float | None, typer.Option(min=1, help="Streams at the peak, if known.")] = None,
    peak_to_mean: Annotated[float | None, typer.Option(min=1, help="Peak over mean streams.")] = None,
    catalogue_hours: Annotated[float | None, typer.Option(min=0, help="Hours of film there are.")] = None,
    new_hours_per_month: Annotated[float | None, typer.Option(min=0, help="Hours of film added.")] = None,
    source_mbps: Annotated[float | None, typer.Option(min=0, help="Bit rate of the sources.")] = None,
    ladder_mbps: Annotated[float | None, typer.Option(min=0, help="Bit rate of all renditions.")] = None,
    encode_core_hours: Annotated[float | None, typer.Option(min=0, help="To encode one hour.")] = None,
    edge_share: Annotated[float | None, typer.Option(min=0, max=1, help="Bytes the edge answers.")] = None,
    node_gbps: Annotated[float | None, typer.Option(min=0.001, help="Network of an edge node.")] = None,
    redundancy: Annotated[float | None, typer.Option(min=1, help="Copies for place and failure.")] = None,
    fill_gbps: Annotated[float | None, typer.Option(min=0, help="Fill of one node, Gb/s.")] = None,
    fill_hours: Annotated[float | None, typer.Option(min=0, max=24, help="Fill window.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Prices to use; default: those that ship.")] = None,
) -> None:
    """Estimate capacity and cost; every figure says how it was got.

    \b
    kino plan --viewers 100000 --hours-per-day 1.2 --catalogue-hours 5000
    kino --json plan --viewers 100e6 --hours-per-day 2 --mbps 5 --peak-viewers 10e6
    """
    from cli.capacity import Demand, estimate, read_prices
    from cli.gateway import packaged

    state: State = context.obj
    options = {
        name: value for name, value in context.params.items() if name != "prices" and value is not None
    }
    demand = replace(Demand(), **options)
    as_of, known_prices = read_prices(prices or packaged("cli/data/prices.toml"))
    result = estimate(demand, known_prices, given=frozenset(options))
    if state.output.as_json:
        state.output.json({"prices_as_of": as_of, **asdict(result)})
        return
    _show(state.output, result, as_of)


def _show(output: Output, result: Estimate, as_of: str) -> None:
    inputs = [
        (figure.name, _number(figure.value), figure.unit, figure.origin, figure.source)
        for figure in result.inputs
    ]
    output.table(("input", "value", "unit", "", "source"), inputs)
    output.table(("", ""), [])
    figures = [(figure.name, _number(figure.value), figure.unit, figure.source) for figure in result.figures]
    output.table(("figure", "value", "unit", "formula"), figures)
    output.say(f"\nPrices are of {as_of}.")
    for warning in result.warnings:
        output.say(f"[yellow]Look again:[/] {warning}")


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
