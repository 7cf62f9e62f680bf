"""The tables of history. Times are whole microseconds since 1970 in UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, String, Table

metadata = MetaData()

VIEWS = Table(
    "views",
    metadata,
    Column("profile", String(160), primary_key=True),
    Column("title", String(80), primary_key=True),
    Column("start_us", BigInteger, nullable=False),
    Column("lease", String(80), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("position_ns", BigInteger, nullable=False),
    Column("intervals", LargeBinary, nullable=False),  # pairs of little-endian 64-bit integers
    Column("duration_ns", BigInteger, nullable=False),
    Column("device", String(255), nullable=False),
    Column("first_watch_us", BigInteger, nullable=False),
    Column("last_watch_us", BigInteger, nullable=False),
    Column("finished", Boolean, nullable=False),
    Index("views_by_last_watch", "profile", "last_watch_us", "title"),
    Index("views_unfinished", "profile", "finished", "last_watch_us", "title"),
)

#: Deletions: playbacks started until then report in vain. An empty title stands for all of the profile.
DELETIONS = Table(
    "deletions",
    metadata,
    Column("profile", String(160), primary_key=True),
    Column("title", String(80), primary_key=True),
    Column("until_us", BigInteger, nullable=False),
)
