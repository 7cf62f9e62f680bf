"""The embedded index's tables, and the full-text table beside them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

DOCUMENTS = Table(
    "documents",
    metadata,
    Column("document_id", Integer, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("title", String(80), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("release_year", Integer, nullable=False),
    Column("owner", String(255), nullable=False),
    Column("visible", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    UniqueConstraint("generation", "title"),
)

#: One row: which generation answers, which is being built, and whether any was ever finished.
GENERATIONS = Table(
    "generations",
    metadata,
    Column("answering", Integer, primary_key=True),
    Column("building", Integer),
    Column("built", Boolean, nullable=False),
)
