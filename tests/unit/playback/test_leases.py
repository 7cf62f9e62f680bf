from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from services.playback.errors import LeaseEnded, LeaseLost
from services.playback.leases import CHECK_EVERY, GRACE, Leases
from services.playback.model import Lease
from services.playback.store import LeaseState
from services.runtime.clock import ManualClock
from services.runtime.errors import Unavailable
from services.runtime.sql import DatabaseUnavailable

TTL = timedelta(seconds=60)


@dataclass
class MemoryLeases:
    """A `LeaseStore` that can be down, and counts what it is asked."""

    down: bool = False
    renewals: int = 0
    rows: dict[str, Lease] = field(default_factory=dict)
    ends: dict[str, datetime] = field(default_factory=dict)

    async def take(self, lease: Lease, limit: int, request_id: str, now: datetime) -> Lease:
        self._reach()
        self.rows[lease.name] = lease
        return lease

    async def renew(self, name: str, live_at: datetime, expire_time: datetime) -> LeaseState:
        self.renewals += 1
        self._reach()
        if name in self.ends:
            return LeaseState.ENDED
        if name not in self.rows or self.rows[name].expire_time <= live_at:
            return LeaseState.LOST
        self.rows[name] = Lease(**{**vars(self.rows[name]), "expire_time": expire_time})
        return LeaseState.LIVE

    async def regain(self, name: str, limit: int, now: datetime, expire_time: datetime) -> LeaseState:
        self._reach()
        state = await self.state(name, now)
        if state is not LeaseState.LOST or len(await self.live("", now)) >= limit:
            return state
        self.rows[name] = Lease(**{**vars(self.rows[name]), "expire_time": expire_time})
        return LeaseState.LIVE

    async def state(self, name: str, now: datetime) -> LeaseState:
        self._reach()
        if name in self.ends:
            return LeaseState.ENDED
        return LeaseState.LIVE if self.rows[name].expire_time > now else LeaseState.LOST

    async def end(self, name: str, now: datetime) -> None:
        self._reach()
        self.ends.setdefault(name, now)

    async def live(self, user: str, now: datetime) -> list[Lease]:
        self._reach()
        return [lease for lease in self.rows.values() if lease.expire_time > now]

    async def purge(self, before: datetime) -> int:
        self._reach()
        return 0

    def _reach(self) -> None:
        if self.down:
            raise DatabaseUnavailable(retry_after_ms=1_000)


@dataclass
class Node:
    clock: ManualClock
    store: MemoryLeases
    leases: Leases

    def another(self) -> Leases:
        return Leases(self.store, self.clock, TTL)

    async def started(self, name: str = "a") -> Lease:
        now = self.clock.now()
        lease = Lease(
            name=f"leases/{name}",
            profile="users/ann/profiles/main",
            title="titles/film",
            device="",
            start_time=now,
            expire_time=now + TTL,
            title_duration_ns=1,
        )
        return await self.leases.take(lease, 1, "request")

    async def held_for(self, lease: Lease, seconds: float, step_s: float = 5) -> None:
        for _ in range(int(seconds / step_s)):
            self.clock.advance(step_s)
            await self.leases.hold(lease)


@pytest.fixture
def node() -> Node:
    clock, store = ManualClock(), MemoryLeases()
    return Node(clock=clock, store=store, leases=Leases(store, clock, TTL))


async def test_streaming_renews_at_most_every_fifteen_seconds_and_lives_for_ever(node: Node) -> None:
    lease = await node.started()
    await node.held_for(lease, 3600)
    assert node.store.renewals == 3600 / CHECK_EVERY.total_seconds()


async def test_a_silent_lease_is_lost_after_its_time(node: Node) -> None:
    lease = await node.started()
    node.clock.advance(TTL)
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await node.leases.hold(lease)


async def test_ending_stops_this_node_at_once_and_another_at_its_next_check(node: Node) -> None:
    lease, other = await node.started(), node.another()
    await other.hold(lease)
    await node.leases.end(lease)
    with pytest.raises(LeaseEnded):
        await node.leases.hold(lease)
    await other.hold(lease)
    node.clock.advance(CHECK_EVERY)
    with pytest.raises(LeaseEnded):
        await other.hold(lease)


async def test_a_node_that_never_saw_a_lease_asks_before_it_serves(node: Node) -> None:
    lease = await node.started()
    await node.leases.end(lease)
    with pytest.raises(LeaseEnded):
        await node.another().hold(lease)


async def test_a_renewal_tells_the_new_end(node: Node) -> None:
    lease = await node.started()
    node.clock.advance(30)
    assert await node.leases.renew(lease) == node.clock.now() + TTL


async def test_live_leases_go_on_for_ten_minutes_without_the_database(node: Node) -> None:
    lease = await node.started()
    node.store.down = True
    await node.held_for(lease, CHECK_EVERY.total_seconds() + GRACE.total_seconds() - 5)
    with pytest.raises(Unavailable):
        await node.held_for(lease, 60)


async def test_a_lease_that_went_on_without_the_database_is_picked_up_again(node: Node) -> None:
    lease = await node.started()
    node.store.down = True
    await node.held_for(lease, 300)
    node.store.down = False
    await node.held_for(lease, 300)
    assert [found.name for found in await node.leases.live("users/ann")] == [lease.name]


async def test_a_lease_ended_here_stays_ended_while_the_database_is_down(node: Node) -> None:
    lease = await node.started()
    await node.leases.end(lease)
    node.store.down = True
    node.clock.advance(CHECK_EVERY)
    with pytest.raises(LeaseEnded):
        await node.leases.hold(lease)


async def test_a_node_that_starts_again_goes_on_with_what_it_renewed_and_adds_no_time(node: Node) -> None:
    lease = await node.started()
    await node.held_for(lease, 150)
    node.store.down = True
    again = node.another()
    with pytest.raises(Unavailable):
        await again.hold(lease)
    again = node.another()
    again.restore(json.loads(json.dumps(node.leases.ends())))
    await again.hold(lease)
    node.clock.advance(GRACE.total_seconds() - 30)
    await again.hold(lease)
    third = node.another()
    third.restore(json.loads(json.dumps(again.ends())))
    await third.hold(lease)
    node.clock.advance(31)
    with pytest.raises(Unavailable):
        await third.hold(lease)


async def test_only_live_leases_are_remembered(node: Node) -> None:
    lease = await node.started()
    assert [name for name, _, _ in node.leases.ends()] == [lease.name]
    await node.leases.end(lease)
    assert node.leases.ends() == []


async def test_a_lease_that_was_silent_too_long_gets_no_grace(node: Node) -> None:
    lease = await node.started()
    node.clock.advance(TTL)
    node.store.down = True
    with pytest.raises(Unavailable):
        await node.leases.hold(lease)


async def test_starts_are_refused_while_the_database_is_down(node: Node) -> None:
    node.store.down = True
    with pytest.raises(DatabaseUnavailable):
        await node.started()


async def test_looking_at_a_lease_does_not_renew_it(node: Node) -> None:
    lease = await node.started()
    node.clock.advance(30)
    await node.leases.look(lease)
    assert node.store.rows[lease.name].expire_time == lease.expire_time
    node.clock.advance(30)
    with pytest.raises(LeaseLost):
        await node.leases.look(lease)


async def test_a_lease_that_expired_in_a_pause_is_taken_up_again_while_the_account_has_a_stream_left(
    node: Node,
) -> None:
    paused = replace(await node.started(), stream_limit=1)
    node.clock.advance(TTL)
    with pytest.raises(LeaseLost):
        await node.leases.hold(paused)
    await node.leases.take_up(paused)
    await node.held_for(paused, 300)

    node.clock.advance(TTL)
    other = await node.started("other")
    with pytest.raises(LeaseLost):
        await node.leases.take_up(paused)
    await node.leases.end(other)
    with pytest.raises(LeaseEnded):
        await node.leases.take_up(other)
