"""Whom viewers are sent to, and what an edge says of itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.playback.beat import Beat
from services.playback.edges import FORGET_AFTER, ROUTE_EDGES, EdgeReport, Edges, EdgeState, KnownEdge
from services.runtime.clock import ManualClock
from services.runtime.errors import Unavailable

REPORT = EdgeReport(
    address="https://edge-1.example.org:9443",
    stream_count=0,
    stream_capacity=4,
    sent_bytes_per_second=0,
    sent_bytes=0,
    origin_bytes=0,
    memory_used_bytes=0,
    memory_budget_bytes=0,
    disk_used_bytes=0,
    disk_budget_bytes=0,
)


@dataclass
class Store:
    """An `EdgeStore` in memory."""

    kept: dict[str, KnownEdge] = field(default_factory=dict)
    away: bool = False

    async def report(self, edge: KnownEdge) -> None:
        self.kept[edge.report.address] = edge

    async def edges(self) -> list[KnownEdge]:
        if self.away:
            raise Unavailable(1_000)
        return list(self.kept.values())

    async def forget(self, before: datetime) -> int:
        self.kept = {name: edge for name, edge in self.kept.items() if edge.report_time >= before}
        return 0


def report(number: int, streams: int = 0) -> EdgeReport:
    return replace(REPORT, address=f"https://edge-{number}.example.org:9443", stream_count=streams)


async def registry(*reports: EdgeReport) -> tuple[Edges, Store, ManualClock]:
    clock, store = ManualClock(), Store()
    edges = Edges(store, clock)
    for each in reports:
        await edges.report(each)
    return edges, store, clock


async def test_a_title_goes_to_the_same_edge_whichever_node_is_asked() -> None:
    reports = [report(number) for number in range(6)]
    one, store, clock = await registry(*reports)
    other = Edges(store, clock)
    for title in (f"titles/{n}" for n in range(20)):
        clock.advance(10)
        for each in reports:
            await one.report(each)
        route = await one.route(title)
        assert route == await other.route(title)
        assert len(route) == ROUTE_EDGES


async def test_a_rush_between_two_reports_is_spread() -> None:
    edges, _, _ = await registry(report(1), report(2), report(3))
    firsts = Counter([(await edges.route("titles/premiere"))[0] for _ in range(12)])
    assert sorted(firsts.values()) == [4, 4, 4]
    assert await edges.route("titles/premiere") == []


async def test_who_was_sent_is_counted_until_the_edge_counts_it_itself() -> None:
    edges, _, clock = await registry(report(1))
    for _ in range(4):
        await edges.route("titles/a")
    assert await edges.route("titles/a") == []
    clock.advance(5)
    await edges.report(report(1, streams=3))
    assert await edges.route("titles/a") == [report(1).address]
    assert await edges.route("titles/a") == []


async def test_an_edge_that_is_silent_or_leaves_is_sent_nobody() -> None:
    edges, _, clock = await registry(report(1), report(2), report(3))
    clock.advance(5)
    await edges.report(report(2))
    await edges.report(replace(report(3), leaving=True))
    clock.advance(2)
    assert await edges.route("titles/a") == [report(2).address]
    now = clock.now()
    states = {each.report.address: each.state(now) for each in await edges.known()}
    assert list(states.values()) == [EdgeState.SILENT, EdgeState.LIVE, EdgeState.LEFT]
    clock.advance(FORGET_AFTER.total_seconds() - 3)
    await edges.forget()
    assert len(await edges.known()) == 2


async def test_without_the_store_the_edges_known_before_serve_as_long_as_their_reports_are_fresh() -> None:
    edges, store, clock = await registry(report(1))
    assert await edges.route("titles/a") == [report(1).address]
    store.away = True
    clock.advance(4)
    assert await edges.route("titles/a") == [report(1).address]
    clock.advance(4)
    assert await edges.route("titles/a") == []


def test_what_was_not_read_from_the_origin_was_hit() -> None:
    assert REPORT.hit_ratio == 0
    assert replace(REPORT, sent_bytes=100, origin_bytes=25).hit_ratio == 0.75
    assert replace(REPORT, sent_bytes=100, origin_bytes=300).hit_ratio == 0
    assert REPORT.name == "edges/edge-1-example-org-9443"


@dataclass
class Heard:
    """An `EdgeRegistry` that keeps what it hears, and may be slow or away."""

    reports: list[EdgeReport] = field(default_factory=list)
    away: bool = False
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def report(self, report: EdgeReport) -> None:
        await self.open.wait()
        if self.away:
            raise Unavailable(1_000)
        self.reports.append(report)


async def test_the_rate_is_what_was_sent_between_two_reports() -> None:
    clock, heard, sent = ManualClock(), Heard(), iter([1000, 5000, 5000])
    heard.open.set()
    beat = Beat(heard, lambda: replace(REPORT, sent_bytes=next(sent)), clock)
    for _ in range(3):
        await beat._tell(leaving=False)
        clock.advance(2)
    assert [each.sent_bytes_per_second for each in heard.reports] == [0, 2000, 0]


async def test_the_last_report_is_that_the_edge_leaves() -> None:
    heard = Heard()
    beat = Beat(heard, lambda: REPORT, ManualClock())
    running = asyncio.create_task(beat.run())
    await asyncio.sleep(0)
    beat.leave()
    heard.open.set()
    await beat.close()
    running.cancel()
    assert [each.leaving for each in heard.reports] == [False, True]


async def test_a_registry_that_is_away_ends_no_edge() -> None:
    heard = Heard(away=True)
    heard.open.set()
    beat = Beat(heard, lambda: REPORT, ManualClock())
    await beat._tell(leaving=False)
    heard.away = False
    await beat._tell(leaving=False)
    assert len(heard.reports) == 1


async def test_an_edge_that_comes_or_goes_is_known_with_its_report() -> None:
    edges, _, _ = await registry()
    assert await edges.route("titles/solaris") == []
    await edges.report(report(1))
    assert await edges.route("titles/solaris") == [report(1).address]
    await edges.report(replace(report(1), leaving=True))
    assert await edges.route("titles/solaris") == []
