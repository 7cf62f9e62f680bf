"""A small schema, and things to do with it, for tests of the database itself."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
    update,
)

from services.runtime import idempotency
from services.runtime.sql import Database

METADATA = MetaData()
ACCOUNTS = Table(
    "accounts", METADATA, Column("id", String, primary_key=True), Column("amount", Integer, nullable=False)
)
NOTES = Table(
    "notes", METADATA, Column("id", Integer, primary_key=True), Column("account", ForeignKey("accounts.id"))
)
idempotency.define(METADATA)


async def fill(db: Database) -> None:
    """Make the tables and the account `a`, which holds nothing."""
    await db.write(METADATA.create_all)
    await db.write(lambda conn: conn.execute(insert(ACCOUNTS).values(id="a", amount=0)).rowcount)


def amount(conn: Connection) -> int:
    """What the account holds."""
    return int(conn.execute(select(ACCOUNTS.c.amount).where(ACCOUNTS.c.id == "a")).scalar_one())


def add_one(conn: Connection) -> int:
    """Read, then write one more; returns the new amount."""
    value = amount(conn) + 1
    conn.execute(update(ACCOUNTS).values(amount=value))
    return value
