"""`kino edge list`: the edges there are, and how much each has to do."""

from __future__ import annotations

from datetime import UTC

import typer

from cli.client import connect
from cli.main import State, run
from cli.output import size
from kino.playback.v1 import edges_pb2 as pb
from kino.playback.v1.edges_pb2_grpc import EdgeRegistryServiceStub

_COLUMNS = ("edge", "address", "state", "streams", "sends", "hits", "memory", "disk", "last heard of")


def list_edges(context: typer.Context) -> None:
    """List the edges that were heard of within a day."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await kino.stub(EdgeRegistryServiceStub).ListEdges(pb.ListEdgesRequest())
            state.output.messages(answer.edges, _COLUMNS, [_row(edge) for edge in answer.edges])

    run(work)


def _row(edge: pb.Edge) -> tuple[str, ...]:
    return (
        edge.name,
        edge.address,
        pb.Edge.State.Name(edge.state).removeprefix("STATE_").lower(),
        f"{edge.stream_count}/{edge.stream_capacity}",
        f"{edge.sent_bytes_per_second * 8 / 1e6:.1f} Mbit/s",
        f"{edge.hit_ratio:.0%}",
        _tier(edge.memory),
        _tier(edge.disk),
        edge.report_time.ToDatetime(UTC).isoformat(timespec="seconds"),
    )


def _tier(tier: pb.EdgeTier) -> str:
    return f"{size(tier.used_bytes)} of {size(tier.budget_bytes)}"
