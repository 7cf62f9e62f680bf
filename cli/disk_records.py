"""What the catalog's and ingest's databases say of objects and uploads: read, never written."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from cli.doctor_sql import connected, services_with_database
from cli.holdings import Holding
from services.runtime.settings import Settings

#: Titles and series, the job or jobs and the picture that belong to each.
_NAMES = (
    "SELECT title_id, display_name, job, next_job, artwork FROM titles WHERE delete_us IS NULL "
    "UNION ALL SELECT series_id, display_name, '', '', artwork FROM series"
)
_MEDIA = "SELECT title_id, job FROM media"
_PUBLISHED = "SELECT title_id, job, rendition_id, published_count, size_sum_bytes FROM renditions"
_SWEEPS = "SELECT title_id, job, due_us FROM sweeps"
_UPLOADS = "SELECT upload_id, title, file_name FROM uploads WHERE state IN ('RECEIVING', 'COMPLETING')"


@dataclass(frozen=True, kw_only=True)
class Records:
    """Ids are those in object keys: without `titles/`, `jobs/`."""

    #: Display names of the titles and series that there are.
    names: Mapping[str, str] = field(default_factory=dict)
    #: Title and job, title and picture: what belongs to them stays.
    kept: frozenset[tuple[str, str]] = frozenset()
    #: Number and bytes of the published segments by title, job and rendition.
    published: Mapping[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    #: When the catalog collects what belongs to a title (no job), a job or a picture.
    sweeps: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    #: Unfinished uploads in words.
    uploads: Mapping[str, str] = field(default_factory=dict)
    knows_catalog: bool = False
    knows_uploads: bool = False
    problems: tuple[str, ...] = ()


def read_records(settings: Settings) -> Records:
    """What could be read; `problems` tells what could not."""
    known: dict[str, Any] = {}
    problems = []
    for service, read in (("catalog", _catalog), ("ingest", _ingest)):
        try:
            with _reading(settings, service) as connection:
                known |= read(connection)
        except _NothingYet:
            continue
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            problems.append(f"The database of {service} can't be read ({cause}).")
    return Records(**known, problems=tuple(problems))


def _catalog(connection: Connection) -> dict[str, Any]:
    titles = connection.execute(text(_NAMES)).all()
    kept = {(row.title_id, item) for row in titles for item in (row.job, row.next_job) if item}
    kept |= {(row.title_id, f"artwork/{row.artwork}") for row in titles if row.artwork}
    kept |= {(row.title_id, row.job) for row in connection.execute(text(_MEDIA))}
    return {
        "names": {row.title_id: row.display_name for row in titles},
        "kept": frozenset((title, _short(item)) for title, item in kept),
        "published": {
            (row.title_id, _short(row.job), row.rendition_id): (row.published_count, row.size_sum_bytes)
            for row in connection.execute(text(_PUBLISHED))
        },
        "sweeps": {
            (row.title_id, _short(row.job)): datetime.fromtimestamp(row.due_us / 1e6, UTC)
            for row in connection.execute(text(_SWEEPS))
        },
        "knows_catalog": True,
    }


def _ingest(connection: Connection) -> dict[str, Any]:
    rows = connection.execute(text(_UPLOADS))
    uploads = {row.upload_id: f"{row.file_name} for {row.title}" for row in rows}
    return {"uploads": uploads, "knows_uploads": True}


def _short(item: str) -> str:
    return item.rpartition("/")[2]


class _NothingYet(Exception):
    """The service has not run here."""


def _reading(settings: Settings, service: str) -> Connection:
    url = make_url(settings.database_url(service))
    if url.get_backend_name() != "sqlite":
        return connected(url)
    path = Path(url.database or "").absolute()
    if not path.exists():
        raise _NothingYet
    address = f"{path.as_uri()}?mode=ro"
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool
    )
    return engine.connect()


def database_sizes(settings: Settings) -> tuple[list[Holding], list[str]]:
    """Of the services whose database isn't a file of this machine, and what could not be measured."""
    found, problems = [], []
    for service in services_with_database():
        url = make_url(settings.database_url(service))
        if url.get_backend_name() != "postgresql":
            continue
        try:
            with connected(url) as connection:
                size_bytes = connection.execute(
                    text("SELECT pg_database_size(current_database())")
                ).scalar_one()
        except SQLAlchemyError:
            problems.append(f"The database of {service} can't be measured.")
            continue
        owner = f"{service} (PostgreSQL)"
        found.append(Holding(kind="database", owner=owner, size_bytes=size_bytes, file_count=0))
    elsewhere = {"history": settings.history_store, "search": settings.search_store}
    problems += [
        f"What {service} holds in {store} is told by {store}'s own tools."
        for service, store in elsewhere.items()
        if store not in ("sql", "embedded")
    ]
    return found, problems
