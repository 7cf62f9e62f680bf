"""Requests that take effect once: the answer is stored with its key in the transaction of the effect.

A service that uses it creates the table in a migration of its own with `create_table(op)`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from services.runtime.errors import AlreadyExists
from services.runtime.sql import Retry

_NAME = "idempotency_keys"


class RequestIdReused(AlreadyExists):
    """The request_id {request_id} was used before for a different request."""

    reason = "REQUEST_ID_REUSED"
    fields = ("request_id",)


def _columns() -> list[Column[Any]]:
    return [
        Column("scope", String(255), primary_key=True),
        Column("request_id", String(64), primary_key=True),
        Column("request_sha256", LargeBinary(32), nullable=False),
        Column("response", LargeBinary, nullable=False),
        Column("create_time_ms", BigInteger, nullable=False, index=True),
    ]


def define(metadata: MetaData) -> Table:
    """The table, in a service's metadata."""
    return Table(_NAME, metadata, *_columns())


_TABLE = define(MetaData())


def create_table(op: Any) -> None:
    """Create the table inside a migration; `op` is Alembic's."""
    op.create_table(_NAME, *_columns())


def replay_or_run(
    conn: Connection,
    scope: str,
    request_id: str,
    request_bytes: bytes,
    fn: Callable[[], bytes],
    *,
    now_ms: int | None = None,
) -> bytes:
    """The answer to a request: `fn()`'s at the first call with this key, the stored one at every repetition.

    `scope` names who and what (`users/x/CreateUpload`); `request_bytes` is the request, serialised
    deterministically and without its id. An empty `request_id` runs `fn` every time. Raises
    `RequestIdReused` when the key came with another request. Call it inside `Database.write`: of concurrent
    callers one takes effect.
    """
    if not request_id:
        return fn()
    digest = hashlib.sha256(request_bytes).digest()
    key = (_TABLE.c.scope == scope) & (_TABLE.c.request_id == request_id)
    # The lock makes a repetition something to commit, so that it too waits for a standby: the effect that it
    # answers for may be one whose wait was cut short.
    row = conn.execute(
        select(_TABLE.c.request_sha256, _TABLE.c.response).where(key).with_for_update()
    ).first()
    if row is not None:
        if row.request_sha256 != digest:
            raise RequestIdReused(request_id)
        return bytes(row.response)
    response = fn()
    created = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    values = {"scope": scope, "request_id": request_id, "request_sha256": digest, "response": response}
    try:
        conn.execute(insert(_TABLE).values(**values, create_time_ms=created))
    except IntegrityError as error:
        raise Retry from error
    return response


def purge(conn: Connection, before: datetime) -> int:
    """Forget the keys of requests before that time; returns how many."""
    return conn.execute(
        delete(_TABLE).where(_TABLE.c.create_time_ms < int(before.timestamp() * 1000))
    ).rowcount
