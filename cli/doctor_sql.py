"""What `kino doctor` looks at in PostgreSQL: each server once, then the database of each service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from cli.findings import Finding, ok, warning, wrong
from cli.gateway import SERVICES
from services.runtime import migrations
from services.runtime.settings import Settings

_LEAST_VERSION = 13
_MOST_CLOCK_ERROR_S = 5.0
_PATIENCE_S = 5

_SERVER = text(
    "SELECT current_setting('server_version') AS version, "
    "current_setting('server_version_num')::int AS number, "
    "pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only, "
    "extract(epoch FROM clock_timestamp())::float8 AS now, current_user AS me, "
    "current_setting('synchronous_standby_names') AS wanted, "
    "pg_has_role(current_user, 'pg_monitor', 'USAGE') AS may_see, "
    "(SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' "
    "AND sync_state IN ('sync', 'quorum')) AS standbys"
)
_RIGHTS = text(
    "SELECT has_schema_privilege(current_schema(), 'CREATE') "
    "AND has_schema_privilege(current_schema(), 'USAGE')"
)


async def examine_sql(settings: Settings) -> list[Finding]:
    """Nothing for services on SQLite: their files are made by themselves, in the data folder."""
    elsewhere = {
        *(["history"] if settings.history_store != "sql" else []),
        *(["search"] if settings.search_store != "embedded" else []),
    }
    databases = {
        name: url
        for name in services_with_database()
        if name not in elsewhere
        and (url := make_url(settings.database_url(name))).get_backend_name() == "postgresql"
    }
    servers = {url.set(database=None): url for url in databases.values()}
    found = await asyncio.gather(
        *(asyncio.to_thread(_server, url, settings.sql_synchronous) for url in servers.values()),
        *(asyncio.to_thread(_database, name, url) for name, url in databases.items()),
    )
    return [finding for findings in found for finding in findings]


def services_with_database() -> Iterator[str]:
    """Services that keep a database."""
    for name in SERVICES:
        try:
            migrations.folder_of(f"services.{name}")
        except FileNotFoundError:
            continue
        yield name


def _server(url: URL, synchronous: bool) -> list[Finding]:
    where = f"PostgreSQL at {_hosts(url)}"
    try:
        with connected(url) as connection:
            before_s = time.time()
            said = connection.execute(_SERVER).one()
            ours_s = (before_s + time.time()) / 2
    except SQLAlchemyError:
        return []  # each of its databases says so
    return [
        _version(where, said),
        _writable(where, said),
        _standby(where, said, synchronous),
        _clock(where, said.now - ours_s),
    ]


def _version(where: str, said: Any) -> Finding:
    if said.number < _LEAST_VERSION * 10_000:
        return wrong("sql version", f"{where} is {said.version}: upgrade it to {_LEAST_VERSION} or newer.")
    return ok("sql version", f"{where} is {said.version}.")


def _writable(where: str, said: Any) -> Finding:
    if said.read_only:
        return wrong(
            "sql writes",
            f"{where} takes no writes: promote it, or name all its hosts in KINO_SQL_URL, "
            "so that the one which does is found.",
        )
    return ok("sql writes", f"{where} takes writes.")


def _standby(where: str, said: Any, synchronous: bool) -> Finding:
    if said.wanted and not said.may_see:
        return wrong(
            "sql standby",
            f"{said.me} can't see the standbys of {where}: as its owner, GRANT pg_monitor TO {said.me}.",
        )
    if said.wanted and said.standbys:
        return ok("sql standby", f"{where} waits for a standby, {said.standbys} can be waited for.")
    missing = "has no standby to wait for" if said.wanted else "waits for no standby"
    advice = "start one" if said.wanted else "set synchronous_standby_names"
    if synchronous:
        return wrong(
            "sql standby",
            f"{where} {missing}, so that changes of money and accounts are refused: {advice}, "
            "or unset KINO_SQL_SYNCHRONOUS.",
        )
    return warning(
        "sql standby",
        f"{where} {missing}: what it acknowledged goes with it. To be safe, {advice} and set "
        "KINO_SQL_SYNCHRONOUS=true.",
    )


def _clock(where: str, ahead_s: float) -> Finding:
    if abs(ahead_s) > _MOST_CLOCK_ERROR_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        return wrong(
            "sql clock", f"The clock of {where} is {abs(ahead_s):.0f} s {way} ours: keep both by NTP."
        )
    return ok("sql clock", f"The clock of {where} agrees with ours.")


def _database(service: str, url: URL) -> list[Finding]:
    check, name = f"sql {service}", f"The database {url.database} at {_hosts(url)}"
    try:
        with connected(url) as connection:
            may_make_tables = connection.execute(_RIGHTS).scalar()
            user = connection.execute(text("SELECT current_user")).scalar()
            current = migrations.current_revision(connection)
    except DBAPIError as error:
        problem = " ".join(str(error.orig).split())
        return [
            wrong(
                check,
                f"{name} can't be used ({problem}): start the server, make the database, or correct "
                "KINO_SQL_URL.",
            )
        ]
    if not may_make_tables:
        return [
            wrong(
                check, f"{user} may not make tables in {name[4:]}: GRANT CREATE ON SCHEMA public TO {user}."
            )
        ]
    return [_schema(check, name, service, current)]


def _schema(check: str, name: str, service: str, current: str | None) -> Finding:
    revisions, newest = migrations.revisions_of(f"services.{service}")
    if current == newest:
        return ok(check, f"{name} has the newest schema, {newest}.")
    if current is None:
        return ok(check, f"{name} is empty: {service} makes its tables when it starts.")
    if current in revisions:
        return ok(check, f"{name} has schema {current}: {service} brings it to {newest} when it starts.")
    return wrong(
        check, f"{name} was made by a newer Kino (schema {current}): start that version, or restore a backup."
    )


def connected(url: URL) -> Connection:
    """A connection for a look; `SQLAlchemyError` soon where there is none."""
    options = {} if "connect_timeout" in url.query else {"connect_timeout": _PATIENCE_S}
    return create_engine(url, poolclass=NullPool, connect_args=options).connect()


def _hosts(url: URL) -> str:
    """Where the server is, without user and password."""
    named = url.query.get("host", ())
    hosts = [named] if isinstance(named, str) else list(named)
    own = [f"{url.host}:{url.port}" if url.port else url.host] if url.host else []
    return ", ".join(own + hosts) or "the local socket"
