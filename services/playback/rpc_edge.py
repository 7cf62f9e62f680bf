"""`kino.playback.v1.EdgeService`: what this node keeps on its disk, and why."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import Any

import grpc.aio

from kino.playback.v1 import edge_pb2 as pb
from kino.playback.v1 import edge_pb2_grpc
from services.playback.cache import ChunkCache
from services.playback.disk import Edge, Rank, item_of
from services.playback.errors import EdgeWithoutDisk, SegmentNotReady, SegmentOutOfRange
from services.playback.misses import Cause
from services.playback.model import Rendition, TitleMedia
from services.playback.placement import INIT, Item
from services.playback.plan import Plan, Planner
from services.playback.readers import Readers
from services.playback.titles import Titles
from services.runtime.clock import Clock
from services.runtime.wire import timestamp

EDGE_SERVICE = "kino.playback.v1.EdgeService"


class EdgeServicer(edge_pb2_grpc.EdgeServiceServicer):
    """Serves what the disk tier tells."""

    def __init__(
        self,
        *,
        edge: Edge | None,
        planner: Planner | None,
        cache: ChunkCache,
        titles: Titles,
        readers: Readers,
        clock: Clock,
    ) -> None:
        """`edge` and `planner`: None where the node has no disk tier."""
        self._planner = planner
        self._readers = readers
        self._clock = clock
        self._edge = edge
        self._cache = cache
        self._titles = titles
        self._started = clock.now()

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        """See the contract."""
        edge = self._disk()
        media = await self._titles.get(request.title)
        asked = [media.rendition(request.rendition_id)] if request.rendition_id else media.renditions
        ranks = edge.ranks()
        response = pb.ExplainResponse(
            edge=self._state(edge),
            renditions=[_rendition(edge, ranks, one) for one in asked if one.init_key],
        )
        if request.HasField("segment_number"):
            number = request.segment_number
            key = await self._key(media, media.rendition(request.rendition_id), number)
            name = pb.SegmentName(title=request.title, rendition_id=request.rendition_id, number=number)
            response.segment.CopyFrom(self._segment(edge, name, key))
        return response

    async def GetPlan(self, request: pb.GetPlanRequest, context: Any) -> pb.GetPlanResponse:
        """See the contract."""
        edge, planner = self._disk(), self._planner
        if planner is None:
            raise EdgeWithoutDisk()
        plan, hours = await planner.plan(), planner.hours
        return pb.GetPlanResponse(
            edge=self._state(edge),
            fill_hours=f"{hours.start:%H:%M}-{hours.end:%H:%M}" if hours else "",
            filling=planner.filling,
            fill_bytes_per_second=planner.bytes_per_s,
            renditions=_planned(plan),
        )

    async def GetTraffic(self, request: pb.GetTrafficRequest, context: Any) -> pb.GetTrafficResponse:
        """See the contract."""
        edge = self._disk()
        return pb.GetTrafficResponse(
            edge=self._state(edge),
            count_time=timestamp(self._clock.now()),
            delivered_bytes=self._readers.taken_bytes,
            disk_bytes=edge.disk_bytes,
            origin_bytes=edge.origin_bytes,
            origin_read_count=sum(count.reads for count in edge.misses.counts.values()),
            memory_budget_bytes=self._cache.budget_bytes,
            filled_bytes=edge.filled_bytes,
        )

    def _disk(self) -> Edge:
        if self._edge is None:
            raise EdgeWithoutDisk()
        return self._edge

    async def _key(self, media: TitleMedia, rendition: Rendition, number: int) -> str:
        """Raises `SegmentNotReady`, `SegmentOutOfRange`."""
        if number == INIT and rendition.init_key:
            return rendition.init_key
        segment = await self._titles.segment(media, rendition, number) if number != INIT else None
        if segment is None:
            over = media.is_over(number) or rendition.ends_before(number)
            id_ = rendition.rendition_id
            raise SegmentOutOfRange(id_, number) if over else SegmentNotReady(id_, number, 1_000)
        return segment.object_key

    def _state(self, edge: Edge) -> pb.EdgeState:
        counts = sorted(edge.misses.counts.items(), key=lambda one: -one[1].reads)
        return pb.EdgeState(
            node=f"{platform.node()}:{os.getpid()}",
            start_time=timestamp(self._started),
            budget_bytes=edge.budget_bytes,
            kept_bytes=edge.kept_bytes,
            kept_count=edge.kept_count,
            least_worth=edge.least_worth(),
            misses=[
                pb.MissCount(cause=_cause(cause), count=count.reads, size_bytes=count.bytes)
                for cause, count in counts
            ],
        )

    def _segment(self, edge: Edge, name: pb.SegmentName, key: str) -> pb.SegmentPlacement:
        item = item_of(key)
        placed = pb.SegmentPlacement(
            segment=name,
            kept=edge.keeps(item),
            in_memory=self._cache.holds(key),
            worth=edge.worth(item),
            planned=item in edge.waiting and not edge.keeps(item),
        )
        why = None if placed.kept else edge.misses.why(item)
        if why is not None:
            placed.cause = _cause(why.cause)
            placed.cause_time.CopyFrom(timestamp(datetime.fromtimestamp(why.at_s, UTC)))
        if why is not None and why.other is not None:
            placed.other.CopyFrom(_name(why.other))
            placed.other_worth = why.other_worth
        return placed


def _rendition(edge: Edge, ranks: dict[str, Rank], rendition: Rendition) -> pb.RenditionPlacement:
    group = item_of(rendition.init_key).group
    rank, kept = ranks.get(group), edge.kept_of(group)
    return pb.RenditionPlacement(
        rendition_id=rendition.rendition_id,
        worth=rank.worth if rank else 0.0,
        rank=rank.rank if rank else 0,
        ranked_count=len(ranks),
        kept_count=len(kept),
        kept_bytes=sum(file.size_bytes for file in kept),
    )


def _planned(plan: Plan) -> list[pb.PlannedRendition]:
    """By rendition, in the order of the best of each."""
    found: dict[str, pb.PlannedRendition] = {}
    for wish in plan.wishes:
        name = _name(wish.item)
        one = found.setdefault(
            wish.item.group,
            pb.PlannedRendition(
                title=name.title,
                rendition_id=name.rendition_id,
                worth=wish.worth,
                next_episode=wish.next_episode,
            ),
        )
        one.segment_count += 1
        one.size_bytes += wish.size_bytes
    return list(found.values())


def _name(item: Item) -> pb.SegmentName:
    """By the key: `media/{title}/{job}/{rendition}`."""
    *_, title, _job, rendition_id = item.group.split("/")
    return pb.SegmentName(title=f"titles/{title}", rendition_id=rendition_id, number=item.number)


def _cause(cause: Cause) -> pb.MissCause.ValueType:
    return pb.MissCause.Value(f"MISS_CAUSE_{cause.name}")


def register_edge(servicer: EdgeServicer, server: grpc.aio.Server) -> None:
    """Add the servicer to a server."""
    edge_pb2_grpc.add_EdgeServiceServicer_to_server(servicer, server)
