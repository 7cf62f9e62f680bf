"""The embedded index: SQLite's FTS5 finds candidates by n-grams, the domain ranks them.

The n-grams are made here, not by FTS5's tokenizer: SQLite 3.40 folds no accents for trigrams and finds
nothing shorter than three characters, which many Chinese and Japanese titles are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text, update

from services.runtime.errors import FailedPrecondition
from services.runtime.sql import Database
from services.search.model import Document, Hit, Viewer, rank
from services.search.store import RebuildSuperseded
from services.search.tables import DOCUMENTS, GENERATIONS
from services.search.text import fold, grams, lookups, terms

#: How many candidates are ranked at least; the right one was among the first 60 for 99 % of misspelt queries.
_CANDIDATES = 100
_DROP_ROWS = 2_000
_FIELDS = tuple(Document.__dataclass_fields__)

_CANDIDATES_SQL = text(
    f"""
    SELECT {", ".join(f"d.{name}" for name in _FIELDS)}
    FROM grams JOIN documents d ON d.document_id = grams.rowid
    WHERE grams MATCH :grams
      AND d.generation = (SELECT answering FROM generations)
      AND NOT d.deleted AND (:sees_all OR d.visible OR d.owner = :subject)
    ORDER BY bm25(grams), d.title
    LIMIT :limit
    """
)


class NotSqlite(FailedPrecondition):
    """The embedded index needs SQLite: take `search` out of KINO_SQL_URLS."""

    reason = "SEARCH_NEEDS_SQLITE"


class SqliteIndex:
    """A `TitleIndex` in one SQLite database."""

    def __init__(self, database: Database) -> None:
        """The database must be migrated."""
        if database.dialect != "sqlite":
            raise NotSqlite()
        self._database = database

    async def put(self, documents: Sequence[Document]) -> None:
        """See `TitleIndex.put`."""

        def run(connection: Connection) -> None:
            state = connection.execute(select(GENERATIONS)).one()
            _put(connection, state.answering, documents)
            if state.building is not None:
                _put(connection, state.building, documents)

        await self._database.write(run)

    async def search(self, query: str, viewer: Viewer, limit: int) -> list[Hit]:
        """See `TitleIndex.search`."""
        asked = {
            "grams": " OR ".join(sorted(terms(lookups(fold(query))))),
            "sees_all": viewer.sees_all,
            "subject": viewer.subject,
            "limit": max(limit, _CANDIDATES),
        }
        if not asked["grams"]:
            return []
        rows = await self._database.read(lambda found: found.execute(_CANDIDATES_SQL, asked).all())
        return rank(query, (_document(row) for row in rows))[:limit]

    async def built(self) -> bool:
        """See `TitleIndex.built`."""
        return bool(
            await self._database.read(lambda found: found.execute(select(GENERATIONS.c.built)).scalar())
        )

    async def begin(self) -> int:
        """See `TitleIndex.begin`."""

        def run(connection: Connection) -> int:
            # Above all there ever were: rows of a generation given up are never taken for the new one's.
            newest = connection.execute(select(func.max(DOCUMENTS.c.generation))).scalar() or 0
            state = connection.execute(select(GENERATIONS)).one()
            building: int = max(newest, state.answering, state.building or 0) + 1
            connection.execute(update(GENERATIONS).values(building=building))
            return building

        generation = await self._database.write(run)
        await self._drop_others(generation)
        return generation

    async def fill(self, generation: int, documents: Sequence[Document]) -> None:
        """See `TitleIndex.fill`."""

        def run(connection: Connection) -> None:
            _must_be_building(connection, generation)
            _put(connection, generation, documents)

        await self._database.write(run)

    async def finish(self, generation: int) -> int:
        """See `TitleIndex.finish`."""

        def run(connection: Connection) -> int:
            _must_be_building(connection, generation)
            connection.execute(update(GENERATIONS).values(answering=generation, building=None, built=True))
            alive = (DOCUMENTS.c.generation == generation) & ~DOCUMENTS.c.deleted
            return connection.execute(select(func.count()).where(alive)).scalar_one()

        count = await self._database.write(run)
        await self._drop_others(generation)
        return count

    async def _drop_others(self, generation: int) -> None:
        """Delete what is neither of this generation nor of the answering one, in short transactions."""

        def run(connection: Connection) -> int:
            answering = connection.execute(select(GENERATIONS.c.answering)).scalar_one()
            other = DOCUMENTS.c.generation.not_in([generation, answering])
            some = select(DOCUMENTS.c.document_id).where(other).limit(_DROP_ROWS)
            found = list(connection.execute(some).scalars())
            _forget(connection, found)
            connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.document_id.in_(found)))
            return len(found)

        while await self._database.write(run):
            pass


def _must_be_building(connection: Connection, generation: int) -> None:
    if connection.execute(select(GENERATIONS.c.building)).scalar_one() != generation:
        raise RebuildSuperseded()


def _put(connection: Connection, generation: int, documents: Sequence[Document]) -> None:
    for document in documents:
        where = (DOCUMENTS.c.generation == generation) & (DOCUMENTS.c.title == document.title)
        old = connection.execute(select(DOCUMENTS.c.document_id, DOCUMENTS.c.version).where(where)).first()
        if old is not None and old.version >= document.version:
            continue
        row = {"generation": generation, **vars(document)}
        if old is None:
            document_id = connection.execute(
                insert(DOCUMENTS).values(row).returning(DOCUMENTS.c.document_id)
            ).scalar_one()
        else:
            document_id = old.document_id
            connection.execute(update(DOCUMENTS).where(where).values(row))
            _forget(connection, [document_id])
        if not document.deleted:
            words = " ".join(terms(grams(fold(document.display_name))))
            connection.execute(
                text("INSERT INTO grams(rowid, pieces) VALUES (:id, :pieces)"),
                {"id": document_id, "pieces": words},
            )


def _forget(connection: Connection, document_ids: Sequence[int]) -> None:
    if document_ids:
        rows = [{"id": document_id} for document_id in document_ids]
        connection.execute(text("DELETE FROM grams WHERE rowid = :id"), rows)


def _document(row: Any) -> Document:
    fields = dict(row._mapping)
    return Document(**{**fields, "visible": bool(fields["visible"]), "deleted": bool(fields["deleted"])})
