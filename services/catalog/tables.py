"""The catalog's tables. Times are whole microseconds since 1970 in UTC."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from services.runtime import idempotency

metadata = MetaData()

TITLES = Table(
    "titles",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("release_year", Integer, nullable=False),
    Column("genres", Text, nullable=False),  # a JSON list
    Column("version", BigInteger, nullable=False),
    Column("job", String(255), nullable=False),
    Column("duration_ns", BigInteger),
    Column("error", LargeBinary),
    Column("create_us", BigInteger, nullable=False),
    Column("update_us", BigInteger, nullable=False),
    Column("playable_us", BigInteger),
    Column("complete_us", BigInteger),
    Column("delete_us", BigInteger),
    Column("unpublished", Boolean, nullable=False, server_default=false()),
    Column("rights", Text, nullable=False, server_default="[]"),  # a JSON list
    Column("artwork", String(63), nullable=False, server_default=""),
    Column("next_job", String(255), nullable=False, server_default=""),
    Column("next_error", LargeBinary),
    Column("artwork_frame_ns", BigInteger),
    Column("artwork_stale", Boolean, nullable=False, server_default=false()),
    Index("titles_by_age", "create_us", "title_id"),
    Index("titles_by_owner", "owner", "create_us", "title_id"),
    # With `WHERE artwork_stale`: nearly empty.
    Index("titles_by_stale_artwork", "title_id"),
)

#: Titles whose newest version the search index may lack: a row is written with each change of a title.
OUTBOX = Table(
    "outbox",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("change_us", BigInteger, nullable=False, index=True),
)

#: What each job made of a title: what plays, what is to replace it, and what was replaced.
MEDIA = Table(
    "media",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("job", String(255), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("timescale", Integer, nullable=False),
    Column("duration_ticks", BigInteger, nullable=False),
    Column("segment_count", Integer, nullable=False),
    Column("planned", Boolean, nullable=False),
    Column("opening_count", Integer),
    Column("replaced", Boolean, nullable=False, server_default=false()),
)

#: Frames, grid and highlights, apart from `media` so that a publication doesn't rewrite them.
MEDIA_DETAILS = Table(
    "media_details",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("job", String(255), primary_key=True),
    Column("frames", LargeBinary, nullable=False),
    Column("starts", LargeBinary, nullable=False),  # little-endian 64-bit integers
    Column("highlights", LargeBinary, nullable=False),
    Column("extras", LargeBinary, nullable=False, server_default=text("''")),
)

RENDITIONS = Table(
    "renditions",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("job", String(255), primary_key=True),
    Column("rendition_id", String(63), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("h264", Boolean, nullable=False),
    Column("height", Integer, nullable=False),
    Column("encoded", LargeBinary, nullable=False),
    Column("init_object_key", Text),
    Column("init_sha256", LargeBinary(32)),
    Column("codecs", Text),
    Column("timescale", Integer),
    Column("published_count", Integer, nullable=False),
    Column("ready_count", Integer, nullable=False),
    Column("size_sum_bytes", BigInteger, nullable=False),
    Column("duration_sum_ticks", BigInteger, nullable=False),
    Column("peak_bits_per_second", BigInteger, nullable=False),
    Column("last_number", Integer),
)

#: The key is what makes the first writer of a segment win.
SEGMENTS = Table(
    "segments",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("job", String(255), primary_key=True),
    Column("rendition_id", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("duration_ticks", BigInteger, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("encoded", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

#: Prefixes whose objects are to be collected.
SWEEPS = Table(
    "sweeps",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("job", String(255), primary_key=True),
    Column("due_us", BigInteger, nullable=False, index=True),
    Column("rounds", Integer, nullable=False),
)

SERIES = Table(
    "series",
    metadata,
    Column("series_id", String(63), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("release_year", Integer, nullable=False),
    Column("genres", Text, nullable=False),  # a JSON list
    Column("version", BigInteger, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("update_us", BigInteger, nullable=False),
    Column("artwork", String(63), nullable=False, server_default=""),
    Index("series_by_age", "create_us", "series_id"),
)

SEASONS = Table(
    "seasons",
    metadata,
    Column("season_id", String(63), primary_key=True),
    Column("series_id", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    UniqueConstraint("series_id", "number"),
)

EPISODES = Table(
    "episodes",
    metadata,
    Column("title_id", String(63), primary_key=True),
    Column("season_id", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    UniqueConstraint("season_id", "number"),
)

#: What each profile wants to watch; `subject` is `titles/…` or `series/…`.
WATCHLIST = Table(
    "watchlist",
    metadata,
    Column("profile", String(255), primary_key=True),
    Column("subject", String(80), primary_key=True),
    Column("add_us", BigInteger, nullable=False),
    Index("watchlist_by_age", "profile", "add_us", "subject"),
    Index("watchlist_by_subject", "subject"),
)

idempotency.define(metadata)
