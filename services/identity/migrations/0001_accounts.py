"""Accounts, profiles, sessions, failed attempts and the operator's claim."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.runtime import idempotency

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables. Times are microseconds since 1970."""
    op.create_table(
        "users",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("email_key", sa.Text, nullable=False, unique=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False, index=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.CheckConstraint("role IN ('viewer', 'publisher', 'operator')"),
    )
    op.create_index("ix_users_create_time_id", "users", ["create_time", "id"])
    op.create_table(
        "profiles",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("user_id", sa.String(63), sa.ForeignKey("users.id"), nullable=False, index=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("user_id", sa.String(63), sa.ForeignKey("users.id"), nullable=False, index=True),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("rotate_time", sa.BigInteger, nullable=False),
        sa.Column("rotate_client", sa.String(64), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sign_in_failures",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("email_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False, index=True),
    )
    op.create_index("ix_sign_in_failures_email_sha256_time", "sign_in_failures", ["email_sha256", "time"])
    op.create_table(
        "operator_claim",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("claim_time", sa.BigInteger),
        sa.CheckConstraint("id = 1"),
    )
    idempotency.create_table(op)
