"""`kino bench`: measure what is promised in numbers."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.main import State
from cli.output import Output
from services.runtime.errors import FailedPrecondition

if TYPE_CHECKING:
    from bench.report import Report

_BENCHES = ("edge", "encode", "playback", "scheduler", "startup", "stores")


class NoCheckout(FailedPrecondition):
    """Benchmarks run from a checkout of Kino, by `make bench NAME={name}`."""

    reason = "NO_CHECKOUT"
    fields = ("name",)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"Which one: {', '.join(_BENCHES)}.")],
    rounds: Annotated[int | None, typer.Option(min=1, help="How often; the median counts.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Only this part, where a benchmark has some.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="With less footage: to see that it works.")] = False,
) -> None:
    """Measure. The last line printed is one JSON object; ends with 1 when a goal is missed.

    \b
    kino bench startup
    kino --json bench startup --rounds 9
    kino bench encode --part apple --quick
    """
    state: State = context.obj
    if name not in _BENCHES:
        raise typer.BadParameter(f"{name} is no benchmark; there are: {', '.join(_BENCHES)}.")
    if importlib.util.find_spec("bench") is None:
        raise NoCheckout(name)
    module = importlib.import_module(f"bench.{name}")
    report: Report = module.run(**options(name, module, rounds=rounds, parts=part, quick=quick))
    if not state.output.as_json:
        _show(state.output, report)
    state.output.json(report.as_dict())
    if any(row.met is False for row in report.rows):
        raise typer.Exit(1)


def options(name: str, module: ModuleType, **given: Any) -> dict[str, Any]:
    """What was given, as far as the benchmark can do it."""
    wanted = {option: value for option, value in given.items() if value}
    for option in wanted.keys() - inspect.signature(module.run).parameters.keys():
        raise typer.BadParameter(f"{name} has no --{option.removesuffix('s')}.")
    known = getattr(module, "PARTS", {})
    for part in wanted.get("parts", ()):
        if part not in known:
            raise typer.BadParameter(f"{part} is no part of {name}; there are: {', '.join(known)}.")
    return wanted


def _show(output: Output, report: Report) -> None:
    verdicts = {True: "met", False: "missed", None: ""}
    rows = [
        (
            row.name,
            f"{row.value:.3g} {row.unit}",
            row.peer or "",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.goal or "",
            verdicts[row.met],
        )
        for row in report.rows
    ]
    output.table(("figure", "value", "peer", "ratio", "goal", ""), rows)
    output.table(("", ""), report.conditions.items())
