from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from services.runtime.sql import Database, DatabaseInUse, StorageFull
from tests.contract.sql_sample import ACCOUNTS, fill

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sql' / 'test.db'}"


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    made = Database(url)
    await fill(made)
    yield made
    await made.close()


async def test_commits_are_on_disk_before_they_are_answered(db: Database) -> None:
    def pragmas(conn: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    full = 2
    assert await db.write(pragmas) == ["wal", full, 1, 5_000]
    assert (await db.read(pragmas))[0] == "wal"


async def test_a_full_disk_is_a_typed_error_and_stores_nothing(db: Database) -> None:
    def grow(conn: Connection) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        conn.execute(insert(ACCOUNTS).values(id="x" * 100_000, amount=1))

    with pytest.raises(StorageFull):
        await db.write(grow)
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
