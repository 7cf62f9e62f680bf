"""Alembic run from code: a service's revisions are plain files in `<package>/migrations/`, no env.py.

The whole upgrade is one transaction: a migration that fails leaves the schema as it was.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from services.runtime.errors import FailedPrecondition

_REVISION = re.compile(r"^revision\b[^=]*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision\b[^=]*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)

#: Of PostgreSQL's advisory locks, the one that a migration holds in its database.
_LOCK = 0x6B696E6F
#: Revisions speak to one `alembic.op`, which is the process's.
_alone = threading.Lock()


class SchemaTooNew(FailedPrecondition):
    """The database of {service} was made by a newer Kino (schema {revision}).
    Start that version, or restore a backup.
    """

    reason = "SCHEMA_TOO_NEW"
    fields = ("service", "revision")


def folder_of(package: str) -> Path:
    """The folder of a package's revisions. Raises `FileNotFoundError` when there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"no package {package}")
    folder = Path(next(iter(spec.submodule_search_locations))) / "migrations"
    if not folder.is_dir():
        raise FileNotFoundError(f"{package} has no migrations")
    return folder


def upgrade(connection: Connection, package: str) -> None:
    """Run the missing revisions of `package`, in the connection's transaction. Alembic is imported only for
    that. Of several processes one does it, the others wait and see it done.
    """
    folder = folder_of(package)
    revisions, head = revisions_of(package)
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    current = current_revision(connection)
    if current == head:
        return
    if current is not None and current not in revisions:
        raise SchemaTooNew(package.rpartition(".")[2], current)
    _run(connection, folder)


def current_revision(connection: Connection) -> str | None:
    """The revision the schema is at; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    value = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if value is None else str(value)


def revisions_of(package: str) -> tuple[set[str], str]:
    """All revisions of a package and the one that none follows, read without importing them."""
    folder = folder_of(package)
    texts = [path.read_text() for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    revisions = {found.group(1) for text in texts if (found := _REVISION.search(text))}
    heads = revisions - {found.group(1) for text in texts if (found := _DOWN_REVISION.search(text))}
    if len(heads) != 1:
        raise ValueError(f"{folder} must hold one line of revisions, but has {len(heads)} heads")
    return revisions, heads.pop()


def _run(connection: Connection, folder: Path) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(folder), version_locations=[str(folder)])
    context = MigrationContext.configure(
        connection, opts={"fn": lambda revision, _: scripts._upgrade_revs("head", revision)}
    )
    with _alone, Operations.context(context):
        context.run_migrations()
