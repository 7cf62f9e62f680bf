from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from services.runtime import idempotency
from services.runtime.idempotency import RequestIdReused, replay_or_run
from services.runtime.sql import Database
from tests.contract.sql_sample import add_one, amount, fill
from tests.support.databases import DIALECTS, empty_database


@pytest.fixture(params=DIALECTS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with empty_database(request, tmp_path) as made:
        await fill(made)
        yield made


async def test_a_repeated_request_gets_the_stored_answer(db: Database) -> None:
    def call(conn: Connection) -> bytes:
        return replay_or_run(conn, "users/a/Pay", "r1", b"5 EUR", lambda: b"paid %d" % add_one(conn))

    assert [await db.write(call) for _ in range(3)] == [b"paid 1"] * 3
    assert await db.read(amount) == 1


async def test_32_callers_at_once_have_one_effect(db: Database) -> None:
    def call(conn: Connection) -> bytes:
        return replay_or_run(conn, "users/a/Pay", "r1", b"5 EUR", lambda: b"paid %d" % add_one(conn))

    assert set(await asyncio.gather(*(db.write(call) for _ in range(32)))) == {b"paid 1"}
    assert await db.read(amount) == 1


async def test_the_same_key_with_another_request_is_refused(db: Database) -> None:
    await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"5 EUR", lambda: b"ok"))
    with pytest.raises(RequestIdReused) as caught:
        await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"6 EUR", lambda: b"ok"))
    assert (caught.value.reason, caught.value.metadata) == ("REQUEST_ID_REUSED", {"request_id": "r1"})


async def test_keys_of_different_scopes_are_different(db: Database) -> None:
    def call(conn: Connection, scope: str) -> bytes:
        return replay_or_run(conn, scope, "r1", b"", lambda: b"%d" % add_one(conn))

    for scope in ("users/a/Pay", "users/b/Pay"):
        await db.write(partial(call, scope=scope))
    assert await db.read(amount) == 2


async def test_without_a_key_each_call_takes_effect(db: Database) -> None:
    for _ in range(2):
        await db.write(lambda conn: replay_or_run(conn, "s", "", b"", lambda: b"%d" % add_one(conn)))
    assert await db.read(amount) == 2


async def test_a_failed_effect_leaves_no_key_behind(db: Database) -> None:
    def fail() -> bytes:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"", fail))
    assert await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"", lambda: b"ok")) == b"ok"


async def test_a_key_that_appears_meanwhile_rolls_the_effect_back(db: Database) -> None:
    runs: list[int] = []

    def call(conn: Connection) -> bytes:
        def effect() -> bytes:
            runs.append(add_one(conn))
            if len(runs) == 1:  # as if another transaction had just committed the same key
                replay_or_run(conn, "s", "r1", b"", lambda: b"other")
            return b"mine"

        return replay_or_run(conn, "s", "r1", b"", effect)

    assert await db.write(call) == b"mine"
    assert (runs, await db.read(amount)) == ([1, 1], 1)


async def test_old_keys_can_be_forgotten(db: Database) -> None:
    def call(conn: Connection, request: str, now_ms: int) -> bytes:
        return replay_or_run(conn, "s", request, b"", lambda: b"ok", now_ms=now_ms)

    for request, now_ms in (("r1", 0), ("r2", 1_000)):
        await db.write(partial(call, request=request, now_ms=now_ms))
    cut = datetime.fromtimestamp(1, UTC)
    assert await db.write(lambda conn: idempotency.purge(conn, cut)) == 1
    with pytest.raises(RequestIdReused):
        await db.write(lambda conn: replay_or_run(conn, "s", "r2", b"x", lambda: b"ok"))
