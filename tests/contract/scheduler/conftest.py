from __future__ import annotations

from tests.support.databases import sql_database_fixture

sql_database = sql_database_fixture("services.scheduler")
