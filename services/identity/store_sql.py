"""Identity's store on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from services.identity.model import (
    Account,
    Claim,
    EmailTaken,
    Erasure,
    Profile,
    Role,
    Session,
    User,
    email_key,
)
from services.identity.store import Transaction
from services.runtime import idempotency
from services.runtime.columns import UtcTime
from services.runtime.sql import Database

T = TypeVar("T")

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("email", Text, nullable=False),
    Column("email_key", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("role", String(16), nullable=False, index=True),
    Column("password_hash", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Index("ix_users_create_time_id", "create_time", "id"),
)
profiles = Table(
    "profiles",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("display_name", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
)
erasures = Table(
    "erasures",
    metadata,
    Column("profile", Text, primary_key=True),
    Column("due_time", UtcTime, nullable=False, index=True),
    Column("rounds", Integer, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("secret_sha256", LargeBinary(32), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("rotate_time", UtcTime, nullable=False),
    Column("rotate_client", String(64), nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("expire_time", UtcTime, nullable=False),
    Column("device", Text, nullable=False, server_default=""),
)
#: Addresses only as hashes: people type passwords into the wrong field.
failures = Table(
    "sign_in_failures",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("email_sha256", LargeBinary(32), nullable=False),
    Column("time", UtcTime, nullable=False, index=True),
    Index("ix_sign_in_failures_email_sha256_time", "email_sha256", "time"),
)
#: One row at most.
claims = Table(
    "operator_claim",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("token_sha256", LargeBinary(32), nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("claim_time", UtcTime),
)
idempotency.define(metadata)


class SqlStore:
    """`Store` on a `Database` that has been migrated."""

    def __init__(self, database: Database) -> None:
        """The database stays its owner's to close."""
        self._database = database

    async def write(self, run: Callable[[Transaction], T]) -> T:
        return await self._database.write(lambda conn: run(SqlTransaction(conn)))

    async def read(self, run: Callable[[Transaction], T]) -> T:
        return await self._database.read(lambda conn: run(SqlTransaction(conn)))


class SqlTransaction:
    """`Transaction` on one connection; its methods are documented there."""

    def __init__(self, conn: Connection) -> None:
        """`conn` is inside a serialisable transaction."""
        self._conn = conn

    def once(
        self, scope: str, request_id: str, request: bytes, now: datetime, run: Callable[[], bytes]
    ) -> bytes:
        now_ms = int(now.timestamp() * 1000)
        return idempotency.replay_or_run(self._conn, scope, request_id, request, run, now_ms=now_ms)

    def account(self, user_id: str) -> Account | None:
        return self._account(users.c.id == user_id)

    def account_by_email(self, key: str) -> Account | None:
        return self._account(users.c.email_key == key)

    def users_after(self, create_time: datetime | None, user_id: str, limit: int) -> list[User]:
        query = select(users).order_by(users.c.create_time, users.c.id).limit(limit)
        if create_time is not None:
            later, same = users.c.create_time > create_time, users.c.create_time == create_time
            query = query.where(later | (same & (users.c.id > user_id)))
        return [_user(row) for row in self._conn.execute(query)]

    def operators(self) -> int:
        query = select(func.count()).select_from(users).where(users.c.role == Role.OPERATOR.value)
        return self._conn.execute(query).scalar_one()

    def add_account(self, account: Account) -> None:
        user = account.user
        if self.account_by_email(email_key(user.email)) is not None:
            raise EmailTaken()
        self._conn.execute(
            insert(users).values(
                id=user.id,
                email=user.email,
                email_key=email_key(user.email),
                display_name=user.display_name,
                role=user.role.value,
                password_hash=account.password_hash,
                create_time=user.create_time,
            )
        )

    def set_password(self, user_id: str, password_hash: str) -> None:
        self._conn.execute(update(users).where(users.c.id == user_id).values(password_hash=password_hash))

    def set_role(self, user_id: str, role: Role) -> None:
        self._conn.execute(update(users).where(users.c.id == user_id).values(role=role.value))

    def profiles(self, user_id: str) -> list[Profile]:
        query = select(profiles).where(profiles.c.user_id == user_id)
        rows = self._conn.execute(query.order_by(profiles.c.create_time, profiles.c.id))
        return [Profile(**row._mapping) for row in rows]

    def add_profile(self, profile: Profile) -> None:
        self._conn.execute(insert(profiles).values(**vars(profile)))

    def delete_profile(self, profile_id: str) -> None:
        self._conn.execute(delete(profiles).where(profiles.c.id == profile_id))

    def save_erasure(self, erasure: Erasure) -> None:
        self.remove_erasure(erasure.profile)
        self._conn.execute(insert(erasures).values(**vars(erasure)))

    def next_erasure(self) -> Erasure | None:
        row = self._conn.execute(select(erasures).order_by(erasures.c.due_time).limit(1)).first()
        return None if row is None else Erasure(**row._mapping)

    def remove_erasure(self, profile: str) -> None:
        self._conn.execute(delete(erasures).where(erasures.c.profile == profile))

    def session(self, session_id: str) -> Session | None:
        row = self._conn.execute(select(sessions).where(sessions.c.id == session_id)).first()
        return None if row is None else Session(**row._mapping)

    def sessions(self, user_id: str) -> list[Session]:
        query = select(sessions).where(sessions.c.user_id == user_id)
        rows = self._conn.execute(query.order_by(sessions.c.create_time, sessions.c.id))
        return [Session(**row._mapping) for row in rows]

    def add_session(self, session: Session) -> None:
        self._conn.execute(insert(sessions).values(**vars(session)))

    def update_session(self, session: Session) -> None:
        self._conn.execute(
            update(sessions)
            .where(sessions.c.id == session.id)
            .values(
                generation=session.generation,
                rotate_time=session.rotate_time,
                rotate_client=session.rotate_client,
                expire_time=session.expire_time,
            )
        )

    def delete_session(self, session_id: str) -> None:
        self._conn.execute(delete(sessions).where(sessions.c.id == session_id))

    def failures(self, email_sha256: bytes, since: datetime) -> list[datetime]:
        self._conn.execute(delete(failures).where(failures.c.time <= since))
        query = (
            select(failures.c.time).where(failures.c.email_sha256 == email_sha256).order_by(failures.c.time)
        )
        return list(self._conn.execute(query.order_by(failures.c.time)).scalars())

    def add_failure(self, failure_id: str, email_sha256: bytes, time: datetime) -> None:
        self._conn.execute(insert(failures).values(id=failure_id, email_sha256=email_sha256, time=time))

    def delete_failure(self, failure_id: str) -> None:
        self._conn.execute(delete(failures).where(failures.c.id == failure_id))

    def claim(self) -> Claim | None:
        columns = claims.c.token_sha256, claims.c.create_time, claims.c.claim_time
        row = self._conn.execute(select(*columns)).first()
        return None if row is None else Claim(**row._mapping)

    def put_claim(self, claim: Claim) -> None:
        self._conn.execute(delete(claims))
        self._conn.execute(insert(claims).values(id=1, **vars(claim)))

    def _account(self, condition: Any) -> Account | None:
        row = self._conn.execute(select(users).where(condition)).first()
        return None if row is None else Account(user=_user(row), password_hash=row.password_hash)


def _user(row: Any) -> User:
    return User(
        id=row.id,
        email=row.email,
        display_name=row.display_name,
        role=Role(row.role),
        create_time=row.create_time,
    )
