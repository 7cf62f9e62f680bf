"""Which edge a viewer of a title is sent to, and which are next when it fails; no I/O.

Rendezvous hashing (Thaler and Ravishankar 1998): every edge draws a number for the title, the highest wins,
so all who ask agree without a table, and an edge that goes moves only its own titles. The draw is weighted by
capacity with the logarithm of Schindelhauer and Schomaker (2005). A title that everybody watches would still
fill its edge, so one whose load is at (1 + c) × the mean is passed over (Mirrokni, Thorup and Zadimoghaddam
2018); the mean is by capacity.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass

#: c: how far above the mean an edge may be. Less levels the load more, and sends more titles to two edges.
SLACK = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLoad:
    """An edge as steering sees it. Addresses are unique."""

    address: str
    streams: int
    #: Streams it is built for, at least 1.
    capacity_streams: int


def ranked(key: str, edges: Collection[EdgeLoad]) -> list[EdgeLoad]:
    """The edges in the order of what they drew for that key, whatever their load."""
    return sorted(edges, key=lambda edge: (-_draw(key, edge), edge.address))


def steer(key: str, edges: Collection[EdgeLoad], slack: float = SLACK) -> list[EdgeLoad]:
    """The edges for one more stream of that key, best first; empty only if every edge is at its capacity.

    Those within the bound come first. The others follow, for a client whose first edges all failed: their
    load has to go somewhere. An edge at its capacity is left out.
    """
    order = ranked(key, edges)
    streams = sum(edge.streams for edge in order) + 1
    capacity = sum(edge.capacity_streams for edge in order)

    def over(edge: EdgeLoad) -> bool:
        return edge.streams >= math.ceil((1 + slack) * streams * edge.capacity_streams / capacity)

    free = [edge for edge in order if edge.streams < edge.capacity_streams]
    return sorted(free, key=over)


def _draw(key: str, edge: EdgeLoad) -> float:
    digest = hashlib.sha256(f"{key}\n{edge.address}".encode()).digest()
    # 52 bits and a half: a float holds them exactly, so that neither 0 nor 1 can come out.
    uniform = ((int.from_bytes(digest[:8]) >> 12) + 0.5) / 2**52
    return -edge.capacity_streams / math.log(uniform)
