"""Rates and waits of calls that take turns with a peer's: A B A B …, medians."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from bench.report import Row

T = TypeVar("T")


@dataclass(kw_only=True)
class Times:
    """Of one kind of call by one way."""

    #: Calls per second, one a round.
    rates: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median round."""
        return median(self.rates)

    def percentile_ms(self, share: float) -> float:
        """The wait that `share` of the calls don't exceed."""
        return sorted(self.waits_s)[min(int(len(self.waits_s) * share), len(self.waits_s) - 1)] * 1e3

    async def round(
        self, call: Callable[[T], Awaitable[object]], keys: Sequence[T], *, at_a_time: int
    ) -> None:
        """Call for every key, so many at a time, and count it."""
        turns = asyncio.Semaphore(at_a_time)

        async def one(key: T) -> None:
            async with turns:
                before = time.perf_counter()
                await call(key)
                self.waits_s.append(time.perf_counter() - before)

        before = time.perf_counter()
        await asyncio.gather(*map(one, keys))
        self.rates.append(len(keys) / (time.perf_counter() - before))


def rows(
    title: str, times: Mapping[str, Times], *, peer: str, ours: str, goal: str = ">=0.8"
) -> Iterator[Row]:
    """Rate, p50 and p99 of every way but the peer's, over the peer's; `ours` has the goal."""
    for name in (name for name in times if name != peer):
        found, other = times[name], times[peer]
        yield Row(
            name=f"{title}, {name}",
            value=found.rate,
            unit="calls/s",
            peer=peer,
            ratio=found.rate / other.rate,
            goal=goal if name == ours else None,
        )
        for share in (0.5, 0.99):
            wait_ms = found.percentile_ms(share)
            yield Row(
                name=f"{title}, {name}, p{round(share * 100)}",
                value=wait_ms,
                unit="ms",
                peer=peer,
                ratio=wait_ms / other.percentile_ms(share),
            )
