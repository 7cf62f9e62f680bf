"""What `kino doctor` looks at in Cassandra, where viewing history is kept there."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC
from typing import TYPE_CHECKING

from cli.findings import Finding, ok, warning, wrong
from services.runtime.errors import KinoError
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from cassandra.cluster import Session

_LEAST_VERSION = 4
_MOST_CLOCK_ERROR_S = 5.0
_RIGHTS = ("CREATE", "SELECT", "MODIFY")


async def examine_cassandra(settings: Settings) -> list[Finding]:
    """Nothing where history is kept in SQL."""
    if settings.history_store != "cassandra":
        return []
    return await asyncio.to_thread(_examine, settings)


def _examine(settings: Settings) -> list[Finding]:
    # Here, because the driver takes half a second to import.
    from services.history.cassandra import connect, typed

    where = ", ".join(settings.cassandra_hosts)
    try:
        session = connect(settings)
    except KinoError as error:
        if error.code.name == "FAILED_PRECONDITION":
            return [wrong("cassandra", error.message)]
        sentence = f"No node at {where} answers: start Cassandra, or correct KINO_CASSANDRA_HOSTS."
        return [wrong("cassandra", sentence)]
    try:
        return [
            _nodes(session, settings.cassandra_datacenter),
            _version(session),
            _clock(session),
            *_keyspace(session, settings),
        ]
    except Exception as error:
        problem = typed(error)
        return [
            wrong("cassandra", f"Cassandra at {where} fails: {str(problem).rstrip('.')}: look at its log.")
        ]
    finally:
        session.cluster.shutdown()


def _nodes(session: Session, datacenter: str) -> Finding:
    """As the driver sees them: a node it can't reach counts as down."""
    nodes = [host for host in session.cluster.metadata.all_hosts() if host.datacenter == datacenter]
    down = sorted(host.address for host in nodes if not host.is_up)
    if down:
        return warning(
            "cassandra", f"In {datacenter} {', '.join(down)} can't be reached: start what is down."
        )
    return ok("cassandra", f"{datacenter} answers, on {len(nodes)} node{'s' if len(nodes) > 1 else ''}.")


def _version(session: Session) -> Finding:
    versions = sorted({str(host.release_version) for host in session.cluster.metadata.all_hosts()})
    old = [version for version in versions if int(version.split(".")[0]) < _LEAST_VERSION]
    if old:
        sentence = f"Cassandra is {', '.join(old)}: upgrade it to {_LEAST_VERSION} or newer."
        return wrong("cassandra version", sentence)
    return ok("cassandra version", f"Cassandra is {', '.join(versions)}.")


def _clock(session: Session) -> Finding:
    before_s = time.time()
    theirs = session.execute("SELECT toTimestamp(now()) FROM system.local").one()[0]
    ahead_s = theirs.replace(tzinfo=UTC).timestamp() - (before_s + time.time()) / 2
    if abs(ahead_s) > _MOST_CLOCK_ERROR_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        sentence = f"Cassandra's clock is {abs(ahead_s):.0f} s {way} ours: keep both by NTP."
        return wrong("cassandra clock", sentence)
    return ok("cassandra clock", "Cassandra's clock agrees with ours.")


def _keyspace(session: Session, settings: Settings) -> list[Finding]:
    name = settings.cassandra_keyspace
    known = session.cluster.metadata.keyspaces.get(name)
    missing = _missing_rights(session, settings, there=known is not None)
    if missing:
        on = f"KEYSPACE {name}" if known else "ALL KEYSPACES"
        grants = " ".join(f"GRANT {right} ON {on} TO {settings.cassandra_username};" for right in missing)
        sentence = f"{settings.cassandra_username} lacks rights: as a superuser, {grants}"
        return [wrong("cassandra rights", sentence)]
    rights = ok("cassandra rights", f"Kino may use the keyspace {name}.")
    if known is None:
        return [rights, ok("cassandra keyspace", f"There is no {name} yet: history makes it when it starts.")]
    copies = known.replication_strategy.export_for_schema() if known.replication_strategy else ""
    return [rights, _copies(name, copies, settings.cassandra_datacenter), _schema(session, name)]


def _missing_rights(session: Session, settings: Settings, *, there: bool) -> list[str]:
    from cassandra import InvalidRequest

    if not settings.cassandra_username:
        return []
    user = '"' + settings.cassandra_username.replace('"', '""') + '"'
    try:
        permissions = session.execute(f"LIST ALL PERMISSIONS OF {user}").all()
        roles = session.execute(f"LIST ROLES OF {user}").all()
    except InvalidRequest:
        return []  # whoever is let in may do everything (AllowAllAuthorizer)
    if any(role[1] for role in roles):
        return []
    resources = {"<all keyspaces>", *([f"<keyspace {settings.cassandra_keyspace}>"] if there else [])}
    granted = {permission for _, _, resource, permission in permissions if resource in resources}
    return [right for right in _RIGHTS if right not in granted]


def _copies(name: str, replication: str, datacenter: str) -> Finding:
    import ast

    copies = str(ast.literal_eval(replication).get(datacenter, "0")) if replication else "0"
    if copies == "0":
        sentence = f"{name} keeps no copy in {datacenter}: ALTER KEYSPACE {name} to replicate there."
        return wrong("cassandra keyspace", sentence)
    if copies == "1":
        sentence = f"{name} keeps one copy of each row: a lost node takes history with it; keep 3 of them."
        return warning("cassandra keyspace", sentence)
    return ok("cassandra keyspace", f"{name} keeps {copies} copies of each row in {datacenter}.")


def _schema(session: Session, name: str) -> Finding:
    from cassandra import InvalidRequest

    from services.history import cql_migrations

    newest = max(cql_migrations.files())
    session.set_keyspace(name)
    try:
        current = max(cql_migrations.applied(session), default=0)
    except InvalidRequest:
        current = 0
    if current > newest:
        sentence = f"{name} was made by a newer Kino (schema {current}): start that version."
        return wrong("cassandra schema", sentence)
    if current < newest:
        sentence = f"{name} has schema {current}: history brings it to {newest} when it starts."
        return ok("cassandra schema", sentence)
    return ok("cassandra schema", f"{name} has the newest schema, {newest}.")
