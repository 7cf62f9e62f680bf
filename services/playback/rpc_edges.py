"""`kino.playback.v1.EdgeRegistryService`, as it is served and as an edge calls it."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
import grpc.aio

from kino.playback.v1 import edges_pb2 as pb
from kino.playback.v1 import edges_pb2_grpc
from kino.playback.v1.edges_pb2_grpc import EdgeRegistryServiceStub
from services.playback.edges import REPORT_EVERY_S, EdgeReport, Edges, EdgeState
from services.playback.errors import NotAtAnEdge
from services.playback.model import Lease
from services.playback.store import LeaseState, LeaseStore
from services.runtime.clock import Clock
from services.runtime.errors import Unavailable
from services.runtime.status import forwarded

SERVICE = "kino.playback.v1.EdgeRegistryService"

_STATES = {
    EdgeState.LIVE: pb.Edge.STATE_LIVE,
    EdgeState.SILENT: pb.Edge.STATE_SILENT,
    EdgeState.LEFT: pb.Edge.STATE_LEFT,
}
_LEASE_STATES = {
    LeaseState.LIVE: pb.HoldLeaseResponse.STATE_LIVE,
    LeaseState.ENDED: pb.HoldLeaseResponse.STATE_ENDED,
    LeaseState.LOST: pb.HoldLeaseResponse.STATE_LOST,
}
_STATE_OF = {state: found for found, state in _LEASE_STATES.items()}
_T = TypeVar("_T")


class EdgeRegistryServicer(edges_pb2_grpc.EdgeRegistryServiceServicer):
    """Serves the registry."""

    def __init__(self, edges: Edges, leases: LeaseStore, clock: Clock) -> None:
        self._edges = edges
        self._leases = leases
        self._clock = clock

    async def ReportEdge(self, request: pb.ReportEdgeRequest, context: Any) -> pb.ReportEdgeResponse:
        """See the contract."""
        await self._edges.report(_report(request))
        return pb.ReportEdgeResponse()

    async def HoldLease(self, request: pb.HoldLeaseRequest, context: Any) -> pb.HoldLeaseResponse:
        """See the contract."""
        live_at = request.live_time.ToDatetime(UTC)
        if request.HasField("expire_time") and request.concurrent_stream_limit:
            until, limit = request.expire_time.ToDatetime(UTC), request.concurrent_stream_limit
            state = await self._leases.regain(request.lease, limit, live_at, until)
        elif request.HasField("expire_time"):
            state = await self._leases.renew(request.lease, live_at, request.expire_time.ToDatetime(UTC))
        else:
            state = await self._leases.state(request.lease, live_at)
        return pb.HoldLeaseResponse(state=_LEASE_STATES[state])

    async def DropLease(self, request: pb.DropLeaseRequest, context: Any) -> pb.DropLeaseResponse:
        """See the contract."""
        await self._leases.end(request.lease, self._clock.now())
        return pb.DropLeaseResponse()

    async def ListEdges(self, request: pb.ListEdgesRequest, context: Any) -> pb.ListEdgesResponse:
        """See the contract."""
        now = self._clock.now()
        edges = []
        for known in await self._edges.known():
            edge = _edge(known.report)
            edge.name, edge.state = known.report.name, _STATES[known.state(now)]
            edge.hit_ratio = known.report.hit_ratio
            edge.report_time.FromDatetime(known.report_time)
            edges.append(edge)
        return pb.ListEdgesResponse(edges=edges)


class RemoteRegistry:
    """An `EdgeRegistry` at another node."""

    def __init__(self, stub: EdgeRegistryServiceStub) -> None:
        self._stub = stub

    async def report(self, report: EdgeReport) -> None:
        """See `EdgeRegistry.report`."""
        request = pb.ReportEdgeRequest(edge=_edge(report), leaving=report.leaving)
        await _asked(self._stub.ReportEdge(request, timeout=REPORT_EVERY_S))


class RemoteLeases:
    """A `LeaseStore` at another node, for an edge: leases go on and end there; the gateway takes new ones."""

    def __init__(self, stub: EdgeRegistryServiceStub) -> None:
        self._stub = stub

    async def take(self, lease: Lease, limit: int, request_id: str, now: datetime) -> Lease:
        """Raises `NotAtAnEdge`."""
        raise NotAtAnEdge()

    async def renew(self, name: str, live_at: datetime, expire_time: datetime) -> LeaseState:
        """See `LeaseStore.renew`."""
        return await self._held(name, live_at, expire_time)

    async def regain(self, name: str, limit: int, now: datetime, expire_time: datetime) -> LeaseState:
        """See `LeaseStore.regain`."""
        return await self._held(name, now, expire_time, limit)

    async def state(self, name: str, now: datetime) -> LeaseState:
        """See `LeaseStore.state`."""
        return await self._held(name, now, None)

    async def end(self, name: str, now: datetime) -> None:
        """See `LeaseStore.end`; the other node's clock says when."""
        await _asked(self._stub.DropLease(pb.DropLeaseRequest(lease=name)))

    async def live(self, user: str, now: datetime) -> list[Lease]:
        """Raises `NotAtAnEdge`."""
        raise NotAtAnEdge()

    async def purge(self, before: datetime) -> int:
        """The other node does."""
        return 0

    async def _held(
        self, name: str, live_at: datetime, expire_time: datetime | None, limit: int = 0
    ) -> LeaseState:
        request = pb.HoldLeaseRequest(lease=name, concurrent_stream_limit=limit)
        request.live_time.FromDatetime(live_at)
        if expire_time is not None:
            request.expire_time.FromDatetime(expire_time)
        return _STATE_OF[(await _asked(self._stub.HoldLease(request))).state]


async def _asked(call: Awaitable[_T]) -> _T:
    """What another node answers. Raises its error as our own; `Unavailable` where it says nothing to us."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise forwarded(error) or Unavailable(1_000) from error


def _edge(report: EdgeReport) -> pb.Edge:
    return pb.Edge(
        address=report.address,
        stream_count=report.stream_count,
        stream_capacity=report.stream_capacity,
        sent_bytes_per_second=report.sent_bytes_per_second,
        sent_bytes=report.sent_bytes,
        origin_bytes=report.origin_bytes,
        memory=pb.EdgeTier(used_bytes=report.memory_used_bytes, budget_bytes=report.memory_budget_bytes),
        disk=pb.EdgeTier(used_bytes=report.disk_used_bytes, budget_bytes=report.disk_budget_bytes),
    )


def _report(request: pb.ReportEdgeRequest) -> EdgeReport:
    edge = request.edge
    return EdgeReport(
        address=edge.address,
        stream_count=edge.stream_count,
        stream_capacity=edge.stream_capacity,
        sent_bytes_per_second=edge.sent_bytes_per_second,
        sent_bytes=edge.sent_bytes,
        origin_bytes=edge.origin_bytes,
        memory_used_bytes=edge.memory.used_bytes,
        memory_budget_bytes=edge.memory.budget_bytes,
        disk_used_bytes=edge.disk.used_bytes,
        disk_budget_bytes=edge.disk.budget_bytes,
        leaving=request.leaving,
    )
