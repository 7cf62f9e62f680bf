from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Connection, insert
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.runtime.sql import Database, DatabaseUnavailable, Retry
from tests.contract.sql_sample import NOTES, add_one, amount, fill
from tests.support.databases import DIALECTS, empty_database


@pytest.fixture(params=DIALECTS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with empty_database(request, tmp_path) as made:
        await fill(made)
        yield made


async def test_concurrent_read_modify_writes_lose_nothing(db: Database) -> None:
    values = await asyncio.gather(*(db.write(add_one) for _ in range(100)))
    assert sorted(values) == list(range(1, 101))
    assert await db.read(amount) == 100


async def test_an_exception_rolls_everything_back_and_comes_out(db: Database) -> None:
    def fail(conn: Connection) -> None:
        add_one(conn)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await db.write(fail)
    assert await db.read(amount) == 0
    assert await db.write(add_one) == 1


async def test_a_read_sees_one_snapshot_while_a_write_commits(db: Database) -> None:
    reading, written = threading.Event(), threading.Event()

    def twice(conn: Connection) -> tuple[int, int]:
        first = amount(conn)
        reading.set()
        assert written.wait(10)
        return first, amount(conn)

    pending = asyncio.create_task(db.read(twice))
    await asyncio.to_thread(reading.wait, 10)
    await db.write(add_one)
    written.set()
    assert await pending == (0, 0)
    assert await db.read(amount) == 1


async def test_a_read_cannot_write(db: Database) -> None:
    with pytest.raises(DBAPIError, match=r"read-?only"):
        await db.read(add_one)
    assert await db.read(amount) == 0


async def test_readers_do_not_wait_for_the_writer(db: Database) -> None:
    writing, go = threading.Event(), threading.Event()

    def hold(conn: Connection) -> None:
        add_one(conn)
        writing.set()
        assert go.wait(10)

    pending = asyncio.create_task(db.write(hold))
    await asyncio.to_thread(writing.wait, 10)
    assert await asyncio.gather(*(db.read(amount) for _ in range(8))) == [0] * 8
    go.set()
    await pending


async def test_foreign_keys_hold(db: Database) -> None:
    with pytest.raises(IntegrityError):
        await db.write(lambda conn: conn.execute(insert(NOTES).values(id=1, account="nobody")).rowcount)


async def test_a_transaction_is_a_plain_function(db: Database) -> None:
    async def coroutine(conn: Connection) -> int:
        return add_one(conn)

    with pytest.raises(TypeError, match="plain function"):
        await db.write(cast("Callable[[Connection], int]", coroutine))
    pending = asyncio.sleep(0)
    with pytest.raises(TypeError, match="not an awaitable"):
        await db.write(cast("Callable[[Connection], int]", lambda conn: pending))
    pending.close()


async def test_a_conflict_runs_the_function_again_from_the_start(db: Database) -> None:
    runs: list[int] = []

    def conflicting(conn: Connection) -> int:
        runs.append(add_one(conn))
        if len(runs) < 3:
            raise Retry
        return runs[-1]

    assert await db.write(conflicting) == 1
    assert (runs, await db.read(amount)) == ([1, 1, 1], 1)


async def test_endless_conflicts_end_as_unavailable(db: Database) -> None:
    runs = []

    def conflicting(conn: Connection) -> None:
        runs.append(1)
        raise Retry

    with pytest.raises(DatabaseUnavailable) as caught:
        await db.write(conflicting)
    assert (len(runs), caught.value.retry_after_ms) == (10, 1_000)
