"""What a writer is told when PostgreSQL or the wire to it fails, and that nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import psutil
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from services.runtime import sql_postgres
from services.runtime.call import set_deadline
from services.runtime.errors import DeadlineExceeded, OutcomeUnknown
from services.runtime.idempotency import replay_or_run
from services.runtime.sql import Database, DatabaseUnavailable
from tests.contract.sql_sample import add_one, amount, fill
from tests.engines.postgres import PostgresServer
from tests.engines.process import wait_until
from tests.engines.proxy import Proxy

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that may be brought down."""
    made = PostgresServer()
    made.start()
    yield made
    made.remove()


@pytest.fixture
async def db(server: PostgresServer) -> AsyncIterator[Database]:
    name = server.new_database()
    made = Database(server.url(name))
    await fill(made)
    yield made
    await made.close()
    server.drop_database(name)


@pytest.fixture
async def wire(server: PostgresServer) -> AsyncIterator[tuple[Database, Proxy]]:
    """A database behind a wire that can be cut."""
    name, proxy = server.new_database(), Proxy(server.port)
    made = Database(server.url(name).replace(str(server.port), str(proxy.port)))
    await fill(made)
    yield made, proxy
    await made.close()
    proxy.close()
    server.drop_database(name)


def pay(conn: Connection) -> bytes:
    """One effect, however often it is asked for."""
    return replay_or_run(conn, "users/a/Pay", "r1", b"5 EUR", lambda: b"paid %d" % add_one(conn))


def end_itself(conn: Connection) -> None:
    """As an administrator ends a connection in the midst of its work."""
    conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def backends(server: PostgresServer, like: str) -> int:
    query = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{like}%' AND pid <> pg_backend_pid()"
    return int(server.value(query))


def end_all(server: PostgresServer) -> None:
    """End every connection of ours, and return once they are gone."""
    ours = "FROM pg_stat_activity WHERE application_name = 'kino'"
    server.execute(f"SELECT pg_terminate_backend(pid) {ours}")
    wait_until(lambda: server.value(f"SELECT count(*) {ours}") == 0, 10, "the end of the connections")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_without_a_reply_is_unknown_and_its_repetition_has_one_effect(
    wire: tuple[Database, Proxy], when: Literal["before", "after"]
) -> None:
    db, proxy = wire
    proxy.cut_at(b"COMMIT", when)
    with pytest.raises(OutcomeUnknown):
        await db.write(pay)
    assert await db.read(amount) == (1 if when == "after" else 0)
    assert [await db.write(pay) for _ in range(2)] == [b"paid 1"] * 2
    assert await db.read(amount) == 1


async def test_a_wire_cut_before_the_commit_costs_a_new_connection_and_nothing_else(
    wire: tuple[Database, Proxy],
) -> None:
    db, proxy = wire
    proxy.cut_at(b"UPDATE accounts", "after")
    assert await db.write(add_one) == 1


async def test_a_read_whose_end_is_lost_is_read_again(wire: tuple[Database, Proxy]) -> None:
    db, proxy = wire
    proxy.cut_at(b"ROLLBACK", "before")
    assert await db.read(amount) == 0


async def test_connections_that_ended_while_they_were_idle_are_not_used(
    db: Database, server: PostgresServer
) -> None:
    await asyncio.gather(*(db.write(add_one) for _ in range(8)))
    end_all(server)
    runs: list[int] = []

    def count(conn: Connection) -> int:
        runs.append(1)
        return add_one(conn)

    assert [await db.write(count) for _ in range(4)] == [9, 10, 11, 12]
    assert len(runs) == 4


async def test_a_transaction_that_is_ended_is_run_again_on_another_connection(db: Database) -> None:
    runs: list[int] = []

    def once(conn: Connection) -> int:
        runs.append(add_one(conn))
        if len(runs) == 1:
            end_itself(conn)
        return runs[-1]

    assert (await db.write(once), runs) == (1, [1, 1])


@pytest.mark.parametrize("run", ["write", "read"])
async def test_a_transaction_that_is_always_ended_is_a_typed_error(db: Database, run: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await getattr(db, run)(end_itself)
    assert caught.value.retry_after_ms == 1_000
    assert await db.write(add_one) == 1


async def test_a_server_that_stops_and_comes_back_is_unavailable_meanwhile(
    db: Database, server: PostgresServer
) -> None:
    assert await db.write(add_one) == 1
    await asyncio.to_thread(server.stop)
    for call in (db.write(add_one), db.read(amount), db.ping()):
        with pytest.raises(DatabaseUnavailable):
            await call
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    while not starting.done():  # refused, then "starting up", then it answers: nothing else is seen
        try:
            await db.ping()
        except DatabaseUnavailable:
            await asyncio.sleep(0.01)
    await starting
    assert await db.write(add_one) == 2


async def test_a_killed_server_has_lost_nothing_it_acknowledged(db: Database, server: PostgresServer) -> None:
    acknowledged: list[int] = []
    enough = asyncio.Event()

    async def write_on() -> None:
        while True:
            acknowledged.append(await db.write(add_one))
            if len(acknowledged) == 20:
                enough.set()

    writers = [asyncio.create_task(write_on()) for _ in range(4)]
    await enough.wait()
    await asyncio.to_thread(server.kill)
    ends = await asyncio.gather(*writers, return_exceptions=True)
    unknown = sum(isinstance(end, OutcomeUnknown) for end in ends)
    assert all(isinstance(end, OutcomeUnknown | DatabaseUnavailable) for end in ends)
    await asyncio.to_thread(server.start)
    assert max(acknowledged) <= await db.read(amount) <= max(acknowledged) + unknown


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_postgres, "TRANSACTION_LIMIT_S", 0.5)
    monkeypatch.setattr(sql_postgres, "_PATIENCE_S", 0.5)


@pytest.mark.usefixtures("hasty")
async def test_a_transaction_that_takes_too_long_is_ended(db: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await db.write(lambda conn: conn.execute(text("SELECT pg_sleep(60)")).scalar())
    assert await db.write(add_one) == 1


async def test_nothing_goes_on_when_the_calls_time_is_over(db: Database, server: PostgresServer) -> None:
    set_deadline(0.3)
    with pytest.raises(DatabaseUnavailable):
        await db.write(lambda conn: conn.execute(text("SELECT pg_sleep(60)")).scalar())
    with pytest.raises(DeadlineExceeded):
        await db.write(add_one)
    set_deadline(None)
    assert (await db.read(amount), backends(server, "SELECT pg_sleep")) == (0, 0)


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_hangs_is_left(db: Database, server: PostgresServer) -> None:
    def hang(conn: Connection) -> None:
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        os.kill(pid, signal.SIGSTOP)
        add_one(conn)

    try:
        with pytest.raises(DatabaseUnavailable):
            await db.write(hang)
        assert await db.write(lambda conn: conn.execute(text("SELECT 1")).scalar()) == 1
    finally:
        for child in psutil.Process(server.pid).children():
            child.resume()


async def test_a_table_that_is_not_there_yet_is_worth_another_try(db: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await db.write(lambda conn: conn.execute(text("SELECT * FROM later")).all())


async def test_a_failed_statement_that_was_passed_over_is_not_taken_for_success(db: Database) -> None:
    def careless(conn: Connection) -> str:
        add_one(conn)
        try:
            conn.execute(text("SELECT 1 / 0"))
        except DBAPIError:
            return "done"
        return "never"

    with pytest.raises(RuntimeError, match="went on regardless"):
        await db.write(careless)
    assert await db.read(amount) == 0


async def test_a_node_that_takes_no_writes_is_left_for_one_that_does(
    db: Database, server: PostgresServer
) -> None:
    name = await db.read(lambda conn: conn.execute(text("SELECT current_database()")).scalar_one())
    server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert await db.write(add_one) == 1  # a setting of new connections, and this one is old
    end_all(server)
    with pytest.raises(DatabaseUnavailable):
        await db.write(add_one)
    server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert await db.write(add_one) == 2


async def test_processes_that_migrate_at_once_do_it_once(server: PostgresServer) -> None:
    name = server.new_database()
    several = [Database(server.url(name)) for _ in range(4)]
    await asyncio.gather(*(one.migrate("services.billing") for one in several))
    assert server.value("SELECT count(*) FROM alembic_version", name) == 1
    for one in several:
        await one.close()
    server.drop_database(name)
