from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.playback.errors import ConcurrentStreamLimit
from services.playback.model import Lease
from services.playback.store import LeaseState, LeaseStore
from services.playback.store_sql import SqlLeases
from services.runtime.idempotency import RequestIdReused
from services.runtime.sql import Database
from tests.support.databases import sql_database_fixture

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TTL = timedelta(seconds=60)
sql_database = sql_database_fixture("services.playback")


@pytest.fixture
def store(sql_database: Database) -> LeaseStore:
    return SqlLeases(sql_database)


def lease(name: str, user: str = "ann", start: datetime = NOW, device: str = "sofa") -> Lease:
    return Lease(
        name=f"leases/{name}",
        profile=f"users/{user}/profiles/main",
        title="titles/film",
        device=device,
        start_time=start,
        expire_time=start + TTL,
        title_duration_ns=12_000_000_001,
    )


async def take(store: LeaseStore, new: Lease, limit: int = 1, request_id: str = "") -> Lease:
    return await store.take(new, limit, request_id or str(uuid.uuid4()), new.start_time)


async def test_a_lease_comes_back_as_it_was_taken(store: LeaseStore) -> None:
    assert await take(store, lease("a")) == lease("a")
    assert await store.live("users/ann", NOW) == [lease("a")]
    assert await store.live("users/bob", NOW) == []


async def test_fifty_at_once_get_exactly_the_limit(store: LeaseStore) -> None:
    tasks = (take(store, lease(f"{index:02}"), limit=7) for index in range(50))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, ConcurrentStreamLimit)]
    assert (len(refused), len(await store.live("users/ann", NOW))) == (43, 7)
    assert refused[0].metadata == {"quota": "concurrent_streams", "limit": "7"}


async def test_an_account_does_not_use_up_anothers_streams(store: LeaseStore) -> None:
    await take(store, lease("a"))
    assert await take(store, lease("b", user="bob")) == lease("b", user="bob")


async def test_an_expired_lease_and_an_ended_one_free_their_stream(store: LeaseStore) -> None:
    await take(store, lease("a"))
    later = NOW + TTL
    await take(store, lease("b", start=later))
    await store.end("leases/b", later)
    await take(store, lease("c", start=later))
    assert [found.name for found in await store.live("users/ann", later)] == ["leases/c"]


async def test_a_lease_counts_up_to_the_last_moment(store: LeaseStore) -> None:
    await take(store, lease("a"))
    with pytest.raises(ConcurrentStreamLimit):
        await take(store, lease("b", start=NOW + TTL - timedelta(microseconds=1)))


async def test_a_repeated_request_gets_its_first_lease_even_at_the_limit(store: LeaseStore) -> None:
    request_id = str(uuid.uuid4())
    first = await take(store, lease("a"), request_id=request_id)
    again = await take(store, lease("b", start=NOW + timedelta(seconds=5)), request_id=request_id)
    assert (again, len(await store.live("users/ann", NOW))) == (first, 1)


async def test_at_once_repeated_requests_make_one_lease(store: LeaseStore) -> None:
    request_id = str(uuid.uuid4())
    got = await asyncio.gather(*(take(store, lease(str(i)), 9, request_id) for i in range(20)))
    assert (len({found.name for found in got}), len(await store.live("users/ann", NOW))) == (1, 1)


async def test_a_request_id_cannot_ask_for_something_else(store: LeaseStore) -> None:
    request_id = str(uuid.uuid4())
    await take(store, lease("a"), 2, request_id)
    with pytest.raises(RequestIdReused):
        await take(store, lease("b", device="phone"), 2, request_id)


async def test_a_refused_start_leaves_its_request_id_free(store: LeaseStore) -> None:
    request_id = str(uuid.uuid4())
    await take(store, lease("a"))
    with pytest.raises(ConcurrentStreamLimit):
        await take(store, lease("b"), request_id=request_id)
    await store.end("leases/a", NOW)
    assert (await take(store, lease("b"), request_id=request_id)).name == "leases/b"


async def test_renewing_moves_the_end_of_a_live_lease_only(store: LeaseStore) -> None:
    for name in ("live", "ended"):
        await take(store, lease(name), limit=9)
    await store.end("leases/ended", NOW)
    end = NOW + timedelta(minutes=5)
    states = [await store.renew(f"leases/{name}", NOW, end) for name in ("live", "ended", "unknown")]
    assert states == [LeaseState.LIVE, LeaseState.ENDED, LeaseState.LOST]
    assert await store.live("users/ann", NOW) == [replace(lease("live"), expire_time=end)]


async def test_an_expired_lease_is_lost_unless_it_was_live_when_last_seen(store: LeaseStore) -> None:
    await take(store, lease("a"))
    after = NOW + TTL
    assert await store.renew("leases/a", after, after + TTL) is LeaseState.LOST
    assert await store.renew("leases/a", NOW + TTL / 2, after + TTL) is LeaseState.LIVE
    assert [found.name for found in await store.live("users/ann", after)] == ["leases/a"]


async def test_a_thousand_renewals_at_once_each_get_their_own_answer(store: LeaseStore) -> None:
    for name in ("live", "ended"):
        await take(store, lease(name), limit=9)
    await store.end("leases/ended", NOW)
    end = NOW + timedelta(minutes=5)
    names = ["live", "ended", "unknown", "live"] * 250
    states = await asyncio.gather(*(store.renew(f"leases/{name}", NOW, end) for name in names))
    expected = {"live": LeaseState.LIVE, "ended": LeaseState.ENDED, "unknown": LeaseState.LOST}
    assert states == [expected[name] for name in names]
    assert await store.live("users/ann", NOW) == [replace(lease("live"), expire_time=end)]


async def test_ending_twice_keeps_the_first_end(store: LeaseStore) -> None:
    await take(store, lease("a"))
    await store.end("leases/a", NOW)
    await store.end("leases/a", NOW + timedelta(seconds=1))
    assert await store.renew("leases/a", NOW, NOW + TTL) is LeaseState.ENDED


async def test_leases_are_listed_oldest_first(store: LeaseStore) -> None:
    starts = {"b": NOW, "a": NOW + timedelta(microseconds=1), "c": NOW}
    for name, start in starts.items():
        await take(store, lease(name, start=start), limit=9)
    listed = await store.live("users/ann", NOW + timedelta(seconds=1))
    assert [found.name for found in listed] == ["leases/b", "leases/c", "leases/a"]


async def test_purging_forgets_what_ended_before(store: LeaseStore) -> None:
    request_id = str(uuid.uuid4())
    await take(store, lease("old"), 9, request_id)
    later = NOW + timedelta(days=3)
    await take(store, lease("new", start=later), 9)
    assert await store.purge(later) == 1
    assert (await take(store, lease("again", start=later), 9, request_id)).name == "leases/again"


async def test_the_state_of_a_lease_is_told_without_changing_it(store: LeaseStore) -> None:
    for name in ("live", "ended"):
        await take(store, lease(name), limit=9)
    await store.end("leases/ended", NOW)
    assert [await store.state(f"leases/{name}", NOW) for name in ("live", "ended", "never")] == [
        LeaseState.LIVE,
        LeaseState.ENDED,
        LeaseState.LOST,
    ]
    assert await store.state("leases/live", NOW + TTL) is LeaseState.LOST


async def test_an_expired_lease_is_live_again_only_while_its_account_has_a_stream_left(
    store: LeaseStore,
) -> None:
    await take(store, lease("a"))
    later, until = NOW + TTL, NOW + 3 * TTL
    assert await store.regain("leases/a", 1, later, until) is LeaseState.LIVE
    assert await store.live("users/ann", until - TTL) == [replace(lease("a"), expire_time=until)]
    await take(store, lease("b", start=until))
    assert await store.regain("leases/a", 1, until, until + TTL) is LeaseState.LOST
    assert await store.regain("leases/a", 2, until, until + TTL) is LeaseState.LIVE


async def test_neither_an_ended_lease_nor_one_that_never_was_is_live_again(store: LeaseStore) -> None:
    await take(store, lease("a"))
    await store.end("leases/a", NOW)
    assert await store.regain("leases/a", 9, NOW + TTL, NOW + 2 * TTL) is LeaseState.ENDED
    assert await store.regain("leases/never", 9, NOW, NOW + TTL) is LeaseState.LOST
