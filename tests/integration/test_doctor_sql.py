from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.doctor_sql import examine_sql
from cli.findings import Finding
from services.runtime.ids import new_id
from services.runtime.settings import Settings
from services.runtime.sql import Database
from tests.engines.postgres import Postgres

pytestmark = pytest.mark.engine


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    name = postgres.new_database()
    yield name
    postgres.drop_database(name)


async def look(folder: Path, url: str, *, synchronous: bool = False) -> dict[str, Finding]:
    """What is found where only billing is on that database."""
    settings = Settings(data_dir=folder, sql_urls={"billing": url}, sql_synchronous=synchronous)
    return {finding.check: finding for finding in await examine_sql(settings)}


async def test_services_on_sqlite_need_no_look(tmp_path: Path) -> None:
    assert await examine_sql(Settings(data_dir=tmp_path)) == []


async def test_a_server_is_looked_at_once_and_each_database_by_itself(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    found = await examine_sql(Settings(data_dir=tmp_path, sql_url=postgres.url(database)))
    checks = [finding.check for finding in found]
    assert checks[:4] == ["sql version", "sql writes", "sql standby", "sql clock"]
    assert {"sql billing", "sql identity", "sql catalog"} <= set(checks[4:])
    assert {finding.state for finding in found} == {"ok", "warning"}


async def test_the_schema_is_compared_with_this_version(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    url = postgres.url(database)
    assert "is empty" in (await look(tmp_path, url))["sql billing"].sentence
    made = Database(url)
    await made.migrate("services.billing")
    await made.close()
    assert "newest schema" in (await look(tmp_path, url))["sql billing"].sentence
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", database)
    found = (await look(tmp_path, url))["sql billing"]
    assert (found.state, "newer Kino" in found.sentence) == ("wrong", True)


async def test_a_user_without_rights_is_told_which(postgres: Postgres, database: str, tmp_path: Path) -> None:
    user = f"weak_{new_id()}"
    postgres.execute(f"CREATE ROLE {user} LOGIN")
    postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    found = await look(tmp_path, postgres.url(database).replace("//kino@", f"//{user}@"))
    assert found["sql billing"].sentence.endswith(f"GRANT CREATE ON SCHEMA public TO {user}.")
    postgres.execute(f"DROP ROLE {user}")


async def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    found = await look(tmp_path, "postgresql+psycopg://kino:secret@127.0.0.1:1/billing")
    assert list(found) == ["sql billing"]
    assert "127.0.0.1:1 can't be used" in found["sql billing"].sentence
    assert "secret" not in found["sql billing"].sentence


async def test_a_missing_standby_is_wrong_only_where_one_is_asked_for(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    url = postgres.url(database)
    assert (await look(tmp_path, url))["sql standby"].state == "warning"
    found = (await look(tmp_path, url, synchronous=True))["sql standby"]
    assert (found.state, "KINO_SQL_SYNCHRONOUS" in found.sentence) == ("wrong", True)
