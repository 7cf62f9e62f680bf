from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from services.runtime import idempotency
from services.runtime.errors import OutcomeUnknown
from services.runtime.idempotency import RequestIdReused, replay_or_run
from services.runtime.migrations import SchemaTooNew
from services.runtime.sql import Database, DatabaseInUse, DatabaseUnavailable, Retry, StorageFull

ROOT = Path(__file__).parents[2]
METADATA = MetaData()
ACCOUNTS = Table(
    "accounts", METADATA, Column("id", String, primary_key=True), Column("amount", Integer, nullable=False)
)
NOTES = Table(
    "notes", METADATA, Column("id", Integer, primary_key=True), Column("account", ForeignKey("accounts.id"))
)
idempotency.define(METADATA)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sql' / 'test.db'}"


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    made = Database(url)
    await made.write(METADATA.create_all)
    await made.write(lambda conn: conn.execute(insert(ACCOUNTS).values(id="a", amount=0)).rowcount)
    yield made
    await made.close()


def amount(conn: Connection) -> int:
    return int(conn.execute(select(ACCOUNTS.c.amount).where(ACCOUNTS.c.id == "a")).scalar_one())


def add_one(conn: Connection) -> int:
    value = amount(conn) + 1
    conn.execute(update(ACCOUNTS).values(amount=value))
    return value


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
    with pytest.raises(OperationalError, match="readonly"):
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


async def test_commits_are_on_disk_before_they_are_answered(db: Database) -> None:
    def pragmas(conn: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    full = 2
    assert await db.write(pragmas) == ["wal", full, 1, 5_000]
    assert (await db.read(pragmas))[0] == "wal"


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


class _Postgres(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_the_conflicts_of_postgresql_are_retried(sqlstate: str, db: Database) -> None:
    runs = []

    def conflicting(conn: Connection) -> int:
        runs.append(1)
        if len(runs) == 1:
            raise DBAPIError("UPDATE", None, _Postgres(sqlstate))
        return add_one(conn)

    assert (await db.write(conflicting), len(runs)) == (1, 2)


async def test_endless_conflicts_end_as_unavailable(db: Database) -> None:
    runs = []

    def conflicting(conn: Connection) -> None:
        runs.append(1)
        raise Retry

    with pytest.raises(DatabaseUnavailable) as caught:
        await db.write(conflicting)
    assert (len(runs), caught.value.retry_after_ms) == (6, 1_000)


async def test_a_lost_reply_to_commit_is_unknown_and_not_repeated(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def lost(conn: Connection) -> int:
        runs.append(1)
        return add_one(conn)

    def break_off(self: object, connection: Any) -> None:
        connection.commit()
        raise DBAPIError("COMMIT", None, ConnectionResetError(), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(type(db._writer.dialect), "do_commit", break_off)
        with pytest.raises(OutcomeUnknown):
            await db.write(lost)
    assert len(runs) == 1


async def test_a_full_disk_is_a_typed_error_and_stores_nothing(db: Database) -> None:
    def fill(conn: Connection) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        conn.execute(insert(ACCOUNTS).values(id="x" * 100_000, amount=1))

    with pytest.raises(StorageFull):
        await db.write(fill)
    assert await db.read(lambda conn: conn.execute(select(ACCOUNTS.c.id)).scalars().all()) == ["a"]


def test_a_second_process_is_told_what_to_do(db: Database, url: str) -> None:
    code = (
        "import sys\n"
        "from services.runtime.sql import Database, DatabaseInUse\n"
        "try:\n    Database(sys.argv[1]).open()\n"
        "except DatabaseInUse as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "is in use by another Kino process (pid" in done.stdout
    assert "set KINO_DATA_DIR to another folder." in done.stdout


async def test_the_owner_gives_its_lock_up_at_the_end(url: str) -> None:
    first = Database(url)
    first.open()
    with pytest.raises(DatabaseInUse):
        Database(url).open()
    await first.close()
    second = Database(url)
    second.open()
    await second.close()


KILLED = """
import asyncio, os, sys
from sqlalchemy import text
from services.runtime.sql import Database

async def main():
    db = Database(sys.argv[1])
    await db.write(lambda conn: conn.execute(text("CREATE TABLE log (n INTEGER PRIMARY KEY)")).rowcount)
    for n in range(100_000):
        await db.write(lambda conn: conn.execute(text("INSERT INTO log VALUES (:n)"), {"n": n}).rowcount)
        print(n, flush=True)

asyncio.run(main())
"""


def killed_while_writing(command: list[str]) -> list[int]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(25)]
        process.kill()
        return acknowledged + [int(line) for line in process.stdout if line.endswith(b"\n")]


async def test_a_killed_process_has_lost_nothing_it_acknowledged(url: str) -> None:
    acknowledged = killed_while_writing([sys.executable, "-c", KILLED, url])
    db = Database(url)
    stored = await db.read(lambda conn: conn.execute(text("SELECT n FROM log ORDER BY n")).scalars().all())
    assert list(stored[: len(acknowledged)]) == acknowledged
    assert len(stored) <= len(acknowledged) + 1
    await db.close()


class TestIdempotency:
    async def test_a_repeated_request_gets_the_stored_answer(self, db: Database) -> None:
        def call(conn: Connection) -> bytes:
            return replay_or_run(conn, "users/a/Pay", "r1", b"5 EUR", lambda: b"paid %d" % add_one(conn))

        assert [await db.write(call) for _ in range(3)] == [b"paid 1"] * 3
        assert await db.read(amount) == 1

    async def test_32_callers_at_once_have_one_effect(self, db: Database) -> None:
        def call(conn: Connection) -> bytes:
            return replay_or_run(conn, "users/a/Pay", "r1", b"5 EUR", lambda: b"paid %d" % add_one(conn))

        assert set(await asyncio.gather(*(db.write(call) for _ in range(32)))) == {b"paid 1"}
        assert await db.read(amount) == 1

    async def test_the_same_key_with_another_request_is_refused(self, db: Database) -> None:
        await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"5 EUR", lambda: b"ok"))
        with pytest.raises(RequestIdReused) as caught:
            await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"6 EUR", lambda: b"ok"))
        assert (caught.value.reason, caught.value.metadata) == ("REQUEST_ID_REUSED", {"request_id": "r1"})

    async def test_keys_of_different_scopes_are_different(self, db: Database) -> None:
        def call(conn: Connection, scope: str) -> bytes:
            return replay_or_run(conn, scope, "r1", b"", lambda: b"%d" % add_one(conn))

        for scope in ("users/a/Pay", "users/b/Pay"):
            await db.write(partial(call, scope=scope))
        assert await db.read(amount) == 2

    async def test_without_a_key_each_call_takes_effect(self, db: Database) -> None:
        for _ in range(2):
            await db.write(lambda conn: replay_or_run(conn, "s", "", b"", lambda: b"%d" % add_one(conn)))
        assert await db.read(amount) == 2

    async def test_a_failed_effect_leaves_no_key_behind(self, db: Database) -> None:
        def fail() -> bytes:
            raise LookupError("no")

        with pytest.raises(LookupError):
            await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"", fail))
        assert await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"", lambda: b"ok")) == b"ok"

    async def test_a_key_that_appears_meanwhile_rolls_the_effect_back(self, db: Database) -> None:
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

    async def test_old_keys_can_be_forgotten(self, db: Database) -> None:
        def call(conn: Connection, request: str, now_ms: int) -> bytes:
            return replay_or_run(conn, "s", request, b"", lambda: b"ok", now_ms=now_ms)

        for request, now_ms in (("r1", 0), ("r2", 1_000)):
            await db.write(partial(call, request=request, now_ms=now_ms))
        cut = datetime.fromtimestamp(1, UTC)
        assert await db.write(lambda conn: idempotency.purge(conn, cut)) == 1
        with pytest.raises(RequestIdReused):
            await db.write(lambda conn: replay_or_run(conn, "s", "r2", b"x", lambda: b"ok"))


FIRST = """
import sqlalchemy as sa
from alembic import op
from services.runtime import idempotency

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("things", sa.Column("id", sa.String, primary_key=True))
    idempotency.create_table(op)
"""
SECOND = """
import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str = "0001"


def upgrade() -> None:
    op.add_column("things", sa.Column("size", sa.Integer))
    {more}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages" / "sample_service"
    (folder / "migrations").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "migrations" / "0001_first.py").write_text(FIRST)
    monkeypatch.syspath_prepend(folder.parent)
    return folder / "migrations"


def columns(conn: Connection) -> list[str]:
    return [row[1] for row in conn.exec_driver_sql("PRAGMA table_info(things)")]


class TestMigrations:
    async def test_missing_revisions_run_in_order_and_once(self, url: str, package: Path) -> None:
        db = Database(url)
        await db.migrate("sample_service")
        assert await db.read(columns) == ["id"]
        (package / "0002_second.py").write_text(SECOND.format(more=""))
        for _ in range(2):
            await db.migrate("sample_service")
            assert await db.read(columns) == ["id", "size"]
        await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"", lambda: b"ok"))
        await db.close()

    async def test_a_failing_migration_leaves_the_schema_as_it_was(self, url: str, package: Path) -> None:
        db = Database(url)
        await db.migrate("sample_service")
        (package / "0002_second.py").write_text(SECOND.format(more="raise RuntimeError('broken')"))
        with pytest.raises(RuntimeError, match="broken"):
            await db.migrate("sample_service")
        assert await db.read(columns) == ["id"]
        (package / "0002_second.py").write_text(SECOND.format(more=""))
        await db.migrate("sample_service")
        assert await db.read(columns) == ["id", "size"]
        await db.close()

    async def test_a_database_of_a_newer_version_is_refused(self, url: str, package: Path) -> None:
        db = Database(url)
        await db.migrate("sample_service")
        await db.write(
            lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '0009'")).rowcount
        )
        with pytest.raises(SchemaTooNew, match="made by a newer Kino"):
            await db.migrate("sample_service")
        await db.close()

    async def test_two_heads_are_a_mistake(self, url: str, package: Path) -> None:
        (package / "0001_other.py").write_text(FIRST.replace("0001", "0001b"))
        db = Database(url)
        with pytest.raises(ValueError, match="2 heads"):
            await db.migrate("sample_service")
        await db.close()

    async def test_a_package_without_migrations_is_a_mistake(self, url: str) -> None:
        db = Database(url)
        with pytest.raises(FileNotFoundError):
            await db.migrate("services.runtime")
        await db.close()

    def test_at_the_head_alembic_is_not_loaded(self, url: str, package: Path) -> None:
        code = (
            "import asyncio, sys\n"
            "from services.runtime.sql import Database\n"
            "async def main():\n"
            "    db = Database(sys.argv[1]); await db.migrate('sample_service'); await db.close()\n"
            "asyncio.run(main())\n"
            "print('alembic' in sys.modules)\n"
        )
        command = [sys.executable, "-c", code, url]
        path = {"PYTHONPATH": f"{ROOT}:{package.parents[1]}"}
        runs = [
            subprocess.run(command, env=path, capture_output=True, text=True, check=True) for _ in range(2)
        ]
        assert [run.stdout.strip() for run in runs] == ["True", "False"]
