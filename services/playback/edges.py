"""The edges there are, told by their own reports, and which of them a viewer is sent to."""

from __future__ import annotations

import enum
import re
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.playback.steering import EdgeLoad, steer
from services.runtime.clock import Clock
from services.runtime.errors import KinoError
from services.runtime.logs import logger

#: How often an edge reports.
REPORT_EVERY_S = 2.0
#: An edge that was silent for this long is sent no viewer: three reports missed.
SILENT_AFTER = timedelta(seconds=3 * REPORT_EVERY_S)
#: Edges not heard of for this long are forgotten.
FORGET_AFTER = timedelta(days=1)
#: Edges named to a viewer: all of three are seldom down at once, and each costs a try.
ROUTE_EDGES = 3
#: The edges are read again after this.
_READ_EVERY_S = 1.0
#: Who was sent to an edge shows in its own count after this: the way there, a report, a reading.
_ARRIVED_AFTER = timedelta(seconds=REPORT_EVERY_S + _READ_EVERY_S)
_log = logger("playback.edges")


class EdgeState(enum.Enum):
    """Whether viewers are sent to an edge."""

    LIVE = "live"
    SILENT = "silent"
    LEFT = "left"


@dataclass(frozen=True, kw_only=True)
class EdgeReport:
    """What an edge says of itself."""

    #: Where native clients reach it: `https://host:port`.
    address: str
    #: Playbacks that read from it now, and that it is built for.
    stream_count: int
    stream_capacity: int
    sent_bytes_per_second: int
    #: Since its process began: media sent to viewers, and read from the origin.
    sent_bytes: int
    origin_bytes: int
    memory_used_bytes: int
    memory_budget_bytes: int
    disk_used_bytes: int
    disk_budget_bytes: int
    #: Whether it goes down.
    leaving: bool = False

    @property
    def name(self) -> str:
        """Resource name, made from the address."""
        return "edges/" + re.sub(r"[^a-z0-9]+", "-", self.address.partition("://")[2].lower())

    @property
    def hit_ratio(self) -> float:
        """Part of what was sent that was not read from the origin for it, 0 to 1."""
        return max(0.0, 1 - self.origin_bytes / self.sent_bytes) if self.sent_bytes else 0.0


@dataclass(frozen=True, kw_only=True)
class KnownEdge:
    """An edge as it was last heard of."""

    report: EdgeReport
    report_time: datetime

    def state(self, now: datetime) -> EdgeState:
        """Whether viewers are sent there."""
        if self.report.leaving:
            return EdgeState.LEFT
        return EdgeState.LIVE if now - self.report_time < SILENT_AFTER else EdgeState.SILENT


class EdgeStore(Protocol):
    """Reports of edges, shared by all playback nodes. Raises `Unavailable` when it can't be reached."""

    async def report(self, edge: KnownEdge) -> None:
        """Keep the report in place of the one before."""

    async def edges(self) -> list[KnownEdge]:
        """The last report of each edge, by address."""

    async def forget(self, before: datetime) -> int:
        """Drop the edges not heard of since then; returns how many."""


class EdgeRegistry(Protocol):
    """Where an edge reports: the playback service, over the network or in its own process."""

    async def report(self, report: EdgeReport) -> None:
        """Raises `KinoError` when it can't be told now."""


class Edges:
    """The edges of a deployment; each playback node has one of these before the same store.

    Between two reports a node counts the viewers whom it sent to an edge itself, so that a rush is spread. It
    does not know of those whom other nodes sent: a bound may be passed by what they send in a report's time.
    """

    def __init__(self, store: EdgeStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: list[KnownEdge] = []
        self._read_s = -_READ_EVERY_S
        self._sent: defaultdict[str, deque[datetime]] = defaultdict(deque)

    async def report(self, report: EdgeReport) -> None:
        """An edge reports. Raises what the store raises."""
        now = self._clock.now()
        await self._store.report(KnownEdge(report=report, report_time=now))
        live = {edge.report.address for edge in self._known if edge.state(now) is EdgeState.LIVE}
        if report.leaving or report.address not in live:
            self._read_s = -_READ_EVERY_S  # whom the next viewer is sent to changes at once

    async def known(self) -> list[KnownEdge]:
        """All that were heard of lately, by address."""
        return await self._store.edges()

    async def forget(self) -> None:
        """Drop those not heard of for long."""
        await self._store.forget(self._clock.now() - FORGET_AFTER)

    async def route(self, title: str) -> list[str]:
        """Addresses for one more viewer of a title, best first, `ROUTE_EDGES` at most.

        Empty where no edge is live or all are full. Never fails: without the store the edges read last count
        as long as their reports are fresh.
        """
        await self._read()
        now = self._clock.now()
        live = [edge.report for edge in self._known if edge.state(now) is EdgeState.LIVE]
        loads = [
            EdgeLoad(
                address=edge.address,
                streams=edge.stream_count + self._on_the_way(edge.address, now),
                capacity_streams=edge.stream_capacity,
            )
            for edge in live
        ]
        route = [edge.address for edge in steer(title, loads)[:ROUTE_EDGES]]
        if route:
            self._sent[route[0]].append(now)
        return route

    def _on_the_way(self, address: str, now: datetime) -> int:
        sent = self._sent[address]
        while sent and now - sent[0] >= _ARRIVED_AFTER:
            sent.popleft()
        return len(sent)

    async def _read(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._read_s < _READ_EVERY_S:
            return
        self._read_s = now_s
        try:
            self._known = await self._store.edges()
        except KinoError as error:
            _log.warning("the edges can't be read, those known before are used", reason=error.reason)
