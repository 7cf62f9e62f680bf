"""`kino edge`: what a node keeps on its disk, and why."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from cli.client import connect
from cli.commands.edges import list_edges
from cli.edge_cost import Traffic
from cli.main import State, run
from cli.output import Output
from kino.playback.v1 import edge_pb2 as pb
from kino.playback.v1.edge_pb2_grpc import EdgeServiceStub

_CAUSES = {
    pb.MISS_CAUSE_FIRST_ASK: "first ask",
    pb.MISS_CAUSE_NOT_WORTH: "not worth its room",
    pb.MISS_CAUSE_DISPLACED: "displaced",
    pb.MISS_CAUSE_TOO_BIG: "larger than the budget",
    pb.MISS_CAUSE_DAMAGED: "damaged on the disk",
    pb.MISS_CAUSE_DISK_FAILED: "refused by the disk",
    pb.MISS_CAUSE_ORIGIN_FAILED: "origin failed",
    pb.MISS_CAUSE_WRONG_ANSWER: "origin's answer was wrong",
    pb.MISS_CAUSE_WINDOW_CLOSED: "planned, waits for its hours",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    edge = typer.Typer(
        no_args_is_help=True,
        help="What edges there are, and what one keeps on its disk, and why: the one that --url leads to.",
    )
    for command in (explain, plan, cost):
        edge.command()(command)
    edge.command("list")(list_edges)
    app.add_typer(edge, name="edge")


def explain(
    context: typer.Context,
    title: Annotated[str, typer.Argument(help="`titles/…`")],
    rendition: Annotated[str, typer.Option(help="Only this rendition.")] = "",
    segment: Annotated[
        int | None, typer.Option(min=-1, help="A segment of it; -1 is its init segment.")
    ] = None,
) -> None:
    """Explain what the edge keeps of a title, and why not the rest.

    \b
    kino edge explain titles/…
    kino edge explain titles/… --rendition h264-720 --segment 12
    """
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = pb.ExplainRequest(title=title, rendition_id=rendition, segment_number=segment)
            answer = await kino.stub(EdgeServiceStub).Explain(request)
            if state.output.as_json:
                state.output.messages([answer], (), ())
                return
            _show(state.output, answer)

    run(work)


def plan(context: typer.Context) -> None:
    """Show what the edge would fetch now, in the order in which it does.

    \b
    kino edge plan
    """
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await kino.stub(EdgeServiceStub).GetPlan(pb.GetPlanRequest())
            rows = [
                (
                    one.title,
                    one.rendition_id,
                    f"{one.worth:.2f}",
                    one.segment_count,
                    f"{one.size_bytes:,}",
                    "opening of the next episode" if one.next_episode else "plays",
                )
                for one in answer.renditions
            ]
            if state.output.as_json:
                state.output.messages([answer], (), ())
                return
            state.output.table(("title", "rendition", "worth", "segments", "bytes", "because of"), rows)
            state.output.say(_hours(answer))
            show_state(state.output, answer.edge)

    run(work)


def _hours(answer: pb.GetPlanResponse) -> str:
    if not answer.fill_hours:
        return "It fetches none of that by itself: set edge_fill_hours."
    now = "now" if answer.filling else "not now"
    return (
        f"Fetched from {answer.fill_hours} UTC ({now}), at {answer.fill_bytes_per_second:,} bytes a second."
    )


def cost(
    context: typer.Context,
    prices: Annotated[Path | None, typer.Option(help="Prices to use; default: those that ship.")] = None,
) -> None:
    """Tell what came from memory, disk and origin since the node started, and what that cost.

    \b
    kino edge cost
    kino --url https://edge-1.example.org:9443 --json edge cost --prices mine.toml
    """
    from cli.capacity import read_prices
    from cli.edge_cost import PRICES, lines
    from cli.gateway import packaged

    state: State = context.obj
    as_of, known = read_prices(prices or packaged("cli/data/prices.toml"), PRICES)

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await kino.stub(EdgeServiceStub).GetTraffic(pb.GetTrafficRequest())
            found = lines(_traffic(answer), known)
            sources = {name: {"usd": price.value, "source": price.source} for name, price in known.items()}
            if state.output.as_json:
                report = {"node": answer.edge.node, "lines": [asdict(line) for line in found]}
                state.output.json({"prices_as_of": as_of, "prices": sources, **report})
                return
            rows = [
                (one.name, f"{one.size_bytes:,}", f"{one.share:.1%}", f"{one.cost_usd:.4f}", one.source)
                for one in found
            ]
            state.output.table(("", "bytes", "of delivered", "USD", "formula"), rows)
            used = [(name, one["usd"], one["source"]) for name, one in sources.items()]
            state.output.table(("price", "USD", "source"), used)
            state.output.say(f"Prices are of {as_of}.")
            show_state(state.output, answer.edge)

    run(work)


def _traffic(answer: pb.GetTrafficResponse) -> Traffic:
    return Traffic(
        over=answer.count_time.ToDatetime() - answer.edge.start_time.ToDatetime(),
        delivered_bytes=answer.delivered_bytes,
        disk_bytes=answer.disk_bytes,
        origin_bytes=answer.origin_bytes,
        origin_reads=answer.origin_read_count,
        disk_budget_bytes=answer.edge.budget_bytes,
        memory_budget_bytes=answer.memory_budget_bytes,
    )


def _show(output: Output, answer: pb.ExplainResponse) -> None:
    output.table(
        ("rendition", "rank", "worth", "segments kept", "bytes"),
        [
            (one.rendition_id, _rank(one), f"{one.worth:.2f}", one.kept_count, f"{one.kept_bytes:,}")
            for one in answer.renditions
        ],
    )
    if answer.HasField("segment"):
        output.say(why(answer.segment, answer.edge))
    show_state(output, answer.edge)


def _rank(one: pb.RenditionPlacement) -> str:
    return f"{one.rank} of {one.ranked_count}" if one.rank else "not played"


def show_state(output: Output, edge: pb.EdgeState) -> None:
    """The node, and its misses."""
    since = f"{edge.start_time.ToDatetime(UTC):%Y-%m-%d %H:%M} UTC"
    output.say(
        f"{edge.node} keeps {edge.kept_count} segments, {edge.kept_bytes:,} of {edge.budget_bytes:,} bytes; "
        f"the least is worth {edge.least_worth:.2f}. Reads of the origin since {since}, by their cause:"
    )
    output.table(
        ("cause", "reads", "bytes"),
        [(_CAUSES[one.cause], one.count, f"{one.size_bytes:,}") for one in edge.misses],
    )


def why(placed: pb.SegmentPlacement, edge: pb.EdgeState) -> str:
    """A sentence about a segment."""
    name = f"Segment {placed.segment.number} of {placed.segment.rendition_id}, worth {placed.worth:.2f},"
    memory = " It is in memory." if placed.in_memory else ""
    memory += " The plan waits to fetch it." if placed.planned else ""
    if placed.kept:
        return f"{name} is on the disk.{memory}"
    if not placed.cause:
        return f"{name} is not on the disk: this node was never asked for it.{memory}"
    other = f"{placed.other.title} {placed.other.rendition_id} {placed.other.number}"
    causes = {
        **_CAUSES,
        pb.MISS_CAUSE_NOT_WORTH: f"the least of what it might displace, {other}, was worth "
        f"{placed.other_worth:.2f}",
        pb.MISS_CAUSE_DISPLACED: f"it gave way to {other}, worth {placed.other_worth:.2f}",
    }
    when = f"{placed.cause_time.ToDatetime(UTC):%Y-%m-%d %H:%M} UTC"
    return f"{name} is not on the disk: {causes[placed.cause]} ({when}).{memory}"
