from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path

import pytest
from sqlalchemy import Connection, Table, inspect, text

from services.runtime.idempotency import replay_or_run
from services.runtime.migrations import SchemaTooNew
from services.runtime.sql import Database
from tests.support.databases import DIALECTS, empty_database, sqlite_database

ROOT = Path(__file__).parents[2]
SERVICES = sorted({path.parts[-3] for path in (ROOT / "services").glob("*/migrations/*.py")})
#: The embedded search index is SQLite's full text; at scale it is Elasticsearch.
PORTABLE = [service for service in SERVICES if service != "search"]


@pytest.fixture(params=DIALECTS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with empty_database(request, tmp_path) as made:
        yield made


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
    return [column["name"] for column in inspect(conn).get_columns("things")]


async def test_missing_revisions_run_in_order_and_once(db: Database, package: Path) -> None:
    await db.migrate("sample_service")
    assert await db.read(columns) == ["id"]
    (package / "0002_second.py").write_text(SECOND.format(more=""))
    for _ in range(2):
        await db.migrate("sample_service")
        assert await db.read(columns) == ["id", "size"]
    await db.write(lambda conn: replay_or_run(conn, "s", "r1", b"", lambda: b"ok"))


async def test_a_failing_migration_leaves_the_schema_as_it_was(db: Database, package: Path) -> None:
    await db.migrate("sample_service")
    (package / "0002_second.py").write_text(SECOND.format(more="raise RuntimeError('broken')"))
    with pytest.raises(RuntimeError, match="broken"):
        await db.migrate("sample_service")
    assert await db.read(columns) == ["id"]
    (package / "0002_second.py").write_text(SECOND.format(more=""))
    await db.migrate("sample_service")
    assert await db.read(columns) == ["id", "size"]


async def test_a_database_of_a_newer_version_is_refused(db: Database, package: Path) -> None:
    await db.migrate("sample_service")
    await db.write(
        lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '0009'")).rowcount
    )
    with pytest.raises(SchemaTooNew, match="made by a newer Kino"):
        await db.migrate("sample_service")


async def test_two_heads_are_a_mistake(db: Database, package: Path) -> None:
    (package / "0001_other.py").write_text(FIRST.replace("0001", "0001b"))
    with pytest.raises(ValueError, match="2 heads"):
        await db.migrate("sample_service")


async def test_a_package_without_migrations_is_a_mistake(db: Database) -> None:
    with pytest.raises(FileNotFoundError):
        await db.migrate("services.runtime")


def test_at_the_head_alembic_is_not_loaded(tmp_path: Path, package: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from services.runtime.sql import Database\n"
        "async def main():\n"
        "    db = Database(sys.argv[1]); await db.migrate('sample_service'); await db.close()\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/test.db"]
    path = {"PYTHONPATH": f"{ROOT}:{package.parents[1]}"}
    runs = [subprocess.run(command, env=path, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout.strip() for run in runs] == ["True", "False"]


def tables_of(service: str) -> dict[str, set[str]]:
    """The tables the modules of a service define, each with its columns."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "services" / service).glob("*.py")):
        if "sqlalchemy" in path.read_text():
            values = vars(import_module(f"services.{service}.{path.stem}")).values()
            found |= {value.name: set(value.columns.keys()) for value in values if isinstance(value, Table)}
    return found


@pytest.mark.parametrize("service", PORTABLE)
async def test_a_services_migrations_make_the_tables_it_uses(service: str, db: Database) -> None:
    await expect_tables_of(service, db)


async def test_the_migrations_of_search_make_its_embedded_index(tmp_path: Path) -> None:
    async with sqlite_database(tmp_path) as db:
        await expect_tables_of("search", db)


async def expect_tables_of(service: str, db: Database) -> None:
    await db.migrate(f"services.{service}")
    used = tables_of(service)

    def made(conn: Connection) -> dict[str, set[str]]:
        inspector = inspect(conn)
        names = inspector.get_table_names()
        return {name: {c["name"] for c in inspector.get_columns(name)} for name in names if name in used}

    assert used
    assert await db.read(made) == used
