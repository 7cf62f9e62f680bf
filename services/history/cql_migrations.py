"""Versions of the keyspace: `cql/NNNN_name.cql`, applied in order, each once, by one process at a time.

A file's statements must be repeatable (IF NOT EXISTS): after a process that ended in the midst another runs
the file again. They block, so they belong in a thread.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cassandra import InvalidRequest
from cassandra.cluster import Session

from services.history.errors import HistoryUnavailable
from services.runtime.errors import FailedPrecondition

FOLDER = Path(__file__).parent / "cql"
APPLIED = "SELECT version FROM schema_versions WHERE service = 'history'"

#: Who holds it may change the schema. Longer than any migration takes; a dead owner's is given up by itself.
_LOCK_S = 60
_LOCK = f"UPDATE schema_versions USING TTL {_LOCK_S} SET owner = %s WHERE service = 'history' IF owner = null"
_UNLOCK = "UPDATE schema_versions SET owner = null WHERE service = 'history' IF owner = %s"
_APPLY = "INSERT INTO schema_versions (service, version, name) VALUES ('history', %s, %s)"
_POLL_S = 0.2


class KeyspaceTooNew(FailedPrecondition):
    """The keyspace {keyspace} was made by a newer Kino (schema {version}).
    Start that version, or restore a backup.
    """

    reason = "SCHEMA_TOO_NEW"
    fields = ("keyspace", "version")


def upgrade(
    session: Session, keyspace: str, replication: Mapping[str, str | int], folder: Path = FOLDER
) -> None:
    """Use the keyspace, made where it is missing, and bring it to the newest version; quick when there."""
    _use(session, keyspace, replication)
    missing = _missing(session, keyspace, folder)
    if not missing:
        return
    owner = str(uuid.uuid4())
    _lock(session, owner)
    try:
        for version, path in _missing(session, keyspace, folder).items():
            for statement in _statements(path):
                _change(session, statement)
            session.execute(_APPLY, (version, path.name))
    finally:
        session.execute(_UNLOCK, (owner,))


def files(folder: Path = FOLDER) -> dict[int, Path]:
    """The files by their versions, ascending."""
    return {int(path.name.partition("_")[0]): path for path in sorted(folder.glob("*.cql"))}


def applied(session: Session) -> set[int]:
    """The versions that the session's keyspace has."""
    return {version for (version,) in session.execute(APPLIED) if version is not None}


def _use(session: Session, keyspace: str, replication: Mapping[str, str | int]) -> None:
    try:
        session.set_keyspace(keyspace)
    except InvalidRequest:
        _change(session, f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {dict(replication)}")
        session.set_keyspace(keyspace)
    try:
        applied(session)
    except InvalidRequest:
        # Nothing guards this table yet. Made on two nodes at once under two ids it would be two tables.
        table_id = uuid.uuid5(uuid.NAMESPACE_OID, f"kino/{keyspace}/schema_versions")
        _change(
            session,
            "CREATE TABLE IF NOT EXISTS schema_versions (service text, version int, name text,"
            f" owner text STATIC, PRIMARY KEY (service, version)) WITH id = {table_id}",
        )


def _missing(session: Session, keyspace: str, folder: Path) -> dict[int, Path]:
    known, there = files(folder), applied(session)
    if newer := there - known.keys():
        raise KeyspaceTooNew(keyspace, max(newer))
    return {version: path for version, path in known.items() if version not in there}


def _lock(session: Session, owner: str) -> None:
    deadline = time.monotonic() + 2 * _LOCK_S
    while not session.execute(_LOCK, (owner,)).was_applied:
        if time.monotonic() > deadline:
            raise HistoryUnavailable(retry_after_ms=1_000)
        time.sleep(_POLL_S)


def _change(session: Session, statement: str) -> None:
    """Change the schema on all nodes. Raises `HistoryUnavailable` when they don't agree in time."""
    result: Any = session.execute(statement)
    if not result.response_future.is_schema_agreed:
        raise HistoryUnavailable(retry_after_ms=1_000)


def _statements(path: Path) -> list[str]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]
