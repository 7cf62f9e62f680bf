from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from services.playback.renewals import MOST_AT_ONCE, Renewal, Renewals
from services.playback.store import LeaseState
from services.runtime.errors import Unavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def renewal(number: int) -> Renewal:
    return Renewal(name=f"leases/{number}", live_at=NOW, expire_time=NOW)


class Store:
    """A slow store that tells how many came at a time."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.away = False

    async def renew(self, renewals: Sequence[Renewal]) -> list[LeaseState]:
        self.batches.append(len(renewals))
        self.asked.set()
        await self.go_on.wait()
        if self.away:
            raise Unavailable(1_000)
        return [LeaseState.LIVE] * len(renewals)


async def test_what_comes_while_others_are_stored_goes_together() -> None:
    store = Store()
    renewals = Renewals(store.renew)
    first = asyncio.create_task(renewals.renew(renewal(0)))
    await store.asked.wait()
    others = [asyncio.create_task(renewals.renew(renewal(number))) for number in range(1, 700)]
    await asyncio.sleep(0)
    store.go_on.set()
    assert set(await asyncio.gather(first, *others)) == {LeaseState.LIVE}
    assert store.batches == [1, MOST_AT_ONCE, 699 - MOST_AT_ONCE]


async def test_a_store_that_is_away_fails_those_who_asked_and_nobody_after() -> None:
    store = Store()
    store.go_on.set()
    store.away = True
    renewals = Renewals(store.renew)
    failed = await asyncio.gather(*(renewals.renew(renewal(n)) for n in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [Unavailable] * 3
    store.away = False
    assert await renewals.renew(renewal(4)) is LeaseState.LIVE


async def test_one_who_stops_waiting_leaves_the_others_alone() -> None:
    store = Store()
    renewals = Renewals(store.renew)
    waiting = [asyncio.create_task(renewals.renew(renewal(number))) for number in range(3)]
    await store.asked.wait()
    waiting[1].cancel()
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    assert set(await asyncio.gather(waiting[0], waiting[2])) == {LeaseState.LIVE}
