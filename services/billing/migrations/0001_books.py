"""Plans, subscriptions, invoices and the ledger, with the rules the database itself holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.runtime import idempotency

revision = "0001"
down_revision = None

#: What may never happen to a row: table, statement, condition on the row, and the sentence that refuses it.
FORBIDDEN = (
    ("ledger_entries", "UPDATE", "", "ledger entries are only added"),
    ("ledger_entries", "DELETE", "", "ledger entries are only added"),
    ("invoices", "DELETE", "", "invoices are never deleted"),
    ("invoices", "UPDATE", "OLD.state <> 'open'", "only an open invoice changes"),
    (
        "invoices",
        "UPDATE OF id, serial, user_id, subscription_id, description, period_start_time, period_end_time, "
        "currency_code, total_minor, create_time, due_time",
        "",
        "of an invoice only the state changes",
    ),
    (
        "plans",
        "UPDATE OF id, display_name, currency_code, price_minor, interval_months, trial_period_days, "
        "concurrent_stream_limit, create_time",
        "",
        "of a plan only archived changes",
    ),
    ("plans", "DELETE", "", "plans are never deleted"),
)


def upgrade() -> None:
    """Create the first tables. Times are microseconds since 1970, money is in minor units."""
    _create_plans()
    _create_subscriptions()
    _create_invoices()
    _create_ledger()
    idempotency.create_table(op)
    for number, (table, statement, condition, sentence) in enumerate(FORBIDDEN):
        _forbid(f"{table}_{number}", table, statement, condition, sentence)


def _create_plans() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("currency_code", sa.String(3), nullable=False),
        sa.Column("price_minor", sa.BigInteger, nullable=False),
        sa.Column("interval_months", sa.Integer, nullable=False),
        sa.Column("trial_period_days", sa.Integer, nullable=False),
        sa.Column("concurrent_stream_limit", sa.Integer, nullable=False),
        sa.Column("archived", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.CheckConstraint("price_minor >= 0"),
        sa.CheckConstraint("interval_months IN (1, 12)"),
    )
    op.create_index("ix_plans_price", "plans", ["archived", "currency_code", "price_minor", "id"])


def _create_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("user_id", sa.String(63), nullable=False),
        sa.Column("plan_id", sa.String(63), sa.ForeignKey("plans.id"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("anchor_time", sa.BigInteger, nullable=False),
        sa.Column("period_index", sa.Integer, nullable=False),
        sa.Column("period_start_time", sa.BigInteger, nullable=False),
        sa.Column("period_end_time", sa.BigInteger, nullable=False),
        sa.Column("trial_end_time", sa.BigInteger),
        sa.Column("cancel_time", sa.BigInteger),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("step_time", sa.BigInteger),
        sa.CheckConstraint("state IN ('trialing', 'incomplete', 'active', 'past_due', 'canceled')"),
        sa.CheckConstraint("period_start_time < period_end_time"),
        sa.CheckConstraint("(state = 'canceled') = (step_time IS NULL)"),
    )
    op.create_index("ix_subscriptions_step_time_id", "subscriptions", ["step_time", "id"])
    op.create_index("ix_subscriptions_user_id_id", "subscriptions", ["user_id", "id"])
    _unique_where("one_living_subscription", "subscriptions", ["user_id"], "state <> 'canceled'")
    _unique_where("one_trial", "subscriptions", ["user_id", "plan_id"], "trial_end_time IS NOT NULL")


def _create_invoices() -> None:
    op.create_table(
        "invoices",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("serial", sa.BigInteger, nullable=False, unique=True),
        sa.Column("user_id", sa.String(63), nullable=False),
        sa.Column("subscription_id", sa.String(63), sa.ForeignKey("subscriptions.id"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("period_start_time", sa.BigInteger, nullable=False),
        sa.Column("period_end_time", sa.BigInteger, nullable=False),
        sa.Column("currency_code", sa.String(3), nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("due_time", sa.BigInteger, nullable=False),
        sa.Column("paid_time", sa.BigInteger),
        sa.UniqueConstraint("subscription_id", "period_start_time"),
        sa.CheckConstraint("total_minor > 0"),
        sa.CheckConstraint("state IN ('open', 'paid', 'void')"),
        sa.CheckConstraint("(state = 'paid') = (paid_time IS NOT NULL)"),
    )
    op.create_index("ix_invoices_user_id_serial", "invoices", ["user_id", "serial"])
    _unique_where("one_open_invoice", "invoices", ["subscription_id"], "state = 'open'")


def _create_ledger() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("debit_account", sa.String(128), nullable=False),
        sa.Column("credit_account", sa.String(128), nullable=False),
        sa.Column("currency_code", sa.String(3), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.CheckConstraint("amount_minor > 0"),
        sa.CheckConstraint("debit_account <> credit_account"),
    )
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "invoice", "value": 0}, {"name": "ledger", "value": 0}])


def _unique_where(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=True, sqlite_where=where, postgresql_where=where)


def _forbid(name: str, table: str, statement: str, condition: str, sentence: str) -> None:
    when = f"WHEN ({condition}) " if condition else ""
    head = f"CREATE TRIGGER forbid_{name} BEFORE {statement} ON {table} FOR EACH ROW {when}"
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"{head} BEGIN SELECT RAISE(ABORT, '{sentence}'); END")
        if statement == "DELETE":
            # REPLACE deletes the old row without firing its DELETE triggers (sqlite.org/lang_replace.html).
            key = "sequence" if table == "ledger_entries" else "id"
            taken = f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"
            op.execute(
                f"CREATE TRIGGER forbid_replace_{table} BEFORE INSERT ON {table} FOR EACH ROW WHEN {taken} "
                f"BEGIN SELECT RAISE(ABORT, '{sentence}'); END"
            )
        return
    function = f"forbid_{name}"
    op.execute(
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{sentence}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(f"{head} EXECUTE FUNCTION {function}()")
    if statement == "DELETE":
        op.execute(
            f"CREATE TRIGGER forbid_truncate_{table} BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
