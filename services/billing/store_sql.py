"""Billing's store on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    insert,
    or_,
    select,
    text,
    update,
)

from services.billing.model import (
    Interval,
    Invoice,
    InvoiceState,
    Period,
    Plan,
    Posting,
    State,
    Subscription,
    next_step,
)
from services.billing.money import Money
from services.billing.store import Transaction
from services.runtime import idempotency
from services.runtime.columns import UtcTime
from services.runtime.sql import Database

T = TypeVar("T")

metadata = MetaData()

plans = Table(
    "plans",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("currency_code", String(3), nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("interval_months", Integer, nullable=False),
    Column("trial_period_days", Integer, nullable=False),
    Column("concurrent_stream_limit", Integer, nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Index("ix_plans_price", "archived", "currency_code", "price_minor", "id"),
)
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("user_id", String(63), nullable=False),
    Column("plan_id", ForeignKey("plans.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("anchor_time", UtcTime, nullable=False),
    Column("period_index", Integer, nullable=False),
    Column("period_start_time", UtcTime, nullable=False),
    Column("period_end_time", UtcTime, nullable=False),
    Column("trial_end_time", UtcTime),
    Column("cancel_time", UtcTime),
    Column("create_time", UtcTime, nullable=False),
    #: When `next_step` is due; empty when there is none.
    Column("step_time", UtcTime),
    Index("ix_subscriptions_step_time_id", "step_time", "id"),
    Index("ix_subscriptions_user_id_id", "user_id", "id"),
)
invoices = Table(
    "invoices",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("serial", BigInteger, nullable=False, unique=True),
    Column("user_id", String(63), nullable=False),
    Column("subscription_id", ForeignKey("subscriptions.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("description", Text, nullable=False),
    Column("period_start_time", UtcTime, nullable=False),
    Column("period_end_time", UtcTime, nullable=False),
    Column("currency_code", String(3), nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("due_time", UtcTime, nullable=False),
    Column("paid_time", UtcTime),
    UniqueConstraint("subscription_id", "period_start_time"),
    Index("ix_invoices_user_id_serial", "user_id", "serial"),
)
ledger = Table(
    "ledger_entries",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("debit_account", String(128), nullable=False),
    Column("credit_account", String(128), nullable=False),
    Column("currency_code", String(3), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
)
#: The last number given out of each series. A row, unlike a database's own sequence, takes a number back when
#: its transaction is undone: so there are no gaps.
counters = Table(
    "counters",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
idempotency.define(metadata)

_WITH_PLAN = select(
    subscriptions, *(column.label(f"plan_{column.name}") for column in plans.c if column.name != "id")
).join(plans)


class SqlStore:
    """`Store` on a `Database` that has been migrated."""

    def __init__(self, database: Database) -> None:
        """The database stays its owner's to close."""
        self._database = database

    async def write(self, run: Callable[[Transaction], T]) -> T:
        """One after the other: all that move money take numbers of the same series anyway."""

        def locked(conn: Connection) -> T:
            if conn.dialect.name == "postgresql":
                # Before the snapshot is taken: writers wait here instead of failing at COMMIT.
                conn.execute(text("LOCK TABLE counters IN SHARE ROW EXCLUSIVE MODE"))
            return run(SqlTransaction(conn))

        return await self._database.write(locked)

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

    def plan(self, plan_id: str) -> Plan | None:
        row = self._conn.execute(select(plans).where(plans.c.id == plan_id)).first()
        return None if row is None else _plan(row._mapping, plan_id)

    def plans_after(self, cursor: tuple[str, int, str] | None, limit: int) -> list[Plan]:
        currency, price, plan_id = plans.c.currency_code, plans.c.price_minor, plans.c.id
        query = (
            select(plans).where(plans.c.archived.is_(False)).order_by(currency, price, plan_id).limit(limit)
        )
        if cursor is not None:
            same_price = and_(currency == cursor[0], price == cursor[1])
            same_currency = and_(currency == cursor[0], price > cursor[1])
            query = query.where(
                or_(currency > cursor[0], same_currency, and_(same_price, plan_id > cursor[2]))
            )
        rows = self._conn.execute(query.order_by(currency, price, plan_id).limit(limit))
        return [_plan(row._mapping, row.id) for row in rows]

    def add_plan(self, plan: Plan) -> None:
        self._conn.execute(
            insert(plans).values(
                id=plan.id,
                display_name=plan.display_name,
                currency_code=plan.price.currency_code,
                price_minor=plan.price.amount_minor,
                interval_months=plan.interval.value,
                trial_period_days=plan.trial_period_days,
                concurrent_stream_limit=plan.concurrent_stream_limit,
                archived=plan.archived,
                create_time=plan.create_time,
            )
        )

    def archive_plan(self, plan_id: str) -> None:
        self._conn.execute(update(plans).where(plans.c.id == plan_id).values(archived=True))

    def subscription(self, subscription_id: str) -> Subscription | None:
        return self._subscription(_WITH_PLAN.where(subscriptions.c.id == subscription_id))

    def latest_subscription(self, user_id: str) -> Subscription | None:
        over = subscriptions.c.state == State.CANCELED.value
        query = _WITH_PLAN.where(subscriptions.c.user_id == user_id)
        return self._subscription(query.order_by(over, subscriptions.c.id.desc()).limit(1))

    def subscriptions_before(self, user_id: str, before_id: str, limit: int) -> list[Subscription]:
        query = _WITH_PLAN.where(subscriptions.c.user_id == user_id)
        if before_id:
            query = query.where(subscriptions.c.id < before_id)
        rows = self._conn.execute(query.order_by(subscriptions.c.id.desc()).limit(limit))
        return [_subscription(row._mapping) for row in rows]

    def had_trial(self, user_id: str, plan_id: str) -> bool:
        mine = and_(subscriptions.c.user_id == user_id, subscriptions.c.plan_id == plan_id)
        query = select(subscriptions.c.id).where(mine, subscriptions.c.trial_end_time.is_not(None)).limit(1)
        return self._conn.execute(query).first() is not None

    def first_due(self, now: datetime) -> Subscription | None:
        query = _WITH_PLAN.where(subscriptions.c.step_time <= now)
        return self._subscription(query.order_by(subscriptions.c.step_time, subscriptions.c.id).limit(1))

    def add_subscription(self, subscription: Subscription) -> None:
        self._conn.execute(
            insert(subscriptions).values(
                id=subscription.id,
                user_id=subscription.user_id,
                plan_id=subscription.plan.id,
                anchor_time=subscription.anchor_time,
                trial_end_time=subscription.trial_end_time,
                create_time=subscription.create_time,
                **_progress(subscription),
            )
        )

    def update_subscription(self, subscription: Subscription) -> None:
        mine = subscriptions.c.id == subscription.id
        self._conn.execute(update(subscriptions).where(mine).values(**_progress(subscription)))

    def invoice(self, invoice_id: str) -> Invoice | None:
        return self._invoice(invoices.c.id == invoice_id)

    def invoice_of_period(self, subscription_id: str, start: datetime) -> Invoice | None:
        return self._invoice(
            and_(invoices.c.subscription_id == subscription_id, invoices.c.period_start_time == start)
        )

    def invoices_before(self, user_id: str, before_serial: int | None, limit: int) -> list[Invoice]:
        query = select(invoices).where(invoices.c.user_id == user_id)
        if before_serial is not None:
            query = query.where(invoices.c.serial < before_serial)
        rows = self._conn.execute(query.order_by(invoices.c.serial.desc()).limit(limit))
        return [_invoice(row) for row in rows]

    def add_invoice(
        self, invoice_id: str, subscription: Subscription, description: str, period: Period, time: datetime
    ) -> Invoice:
        made = Invoice(
            id=invoice_id,
            serial=self._next("invoice"),
            user_id=subscription.user_id,
            subscription_id=subscription.id,
            description=description,
            period=period,
            total=subscription.plan.price,
            create_time=time,
            due_time=time,
        )
        self._conn.execute(
            insert(invoices).values(
                id=made.id,
                serial=made.serial,
                user_id=made.user_id,
                subscription_id=made.subscription_id,
                state=made.state.value,
                description=made.description,
                period_start_time=period.start,
                period_end_time=period.end,
                currency_code=made.total.currency_code,
                total_minor=made.total.amount_minor,
                create_time=made.create_time,
                due_time=made.due_time,
            )
        )
        return made

    def set_invoice_state(self, invoice_id: str, state: InvoiceState, paid_time: datetime | None) -> None:
        mine = invoices.c.id == invoice_id
        self._conn.execute(update(invoices).where(mine).values(state=state.value, paid_time=paid_time))

    def post(self, debit: str, credit: str, amount: Money, cause: str, time: datetime) -> Posting:
        sequence = self._next("ledger")
        self._conn.execute(
            insert(ledger).values(
                sequence=sequence,
                debit_account=debit,
                credit_account=credit,
                cause=cause,
                create_time=time,
                **vars(amount),
            )
        )
        return Posting(
            sequence=sequence,
            debit_account=debit,
            credit_account=credit,
            amount=amount,
            cause=cause,
            create_time=time,
        )

    def postings_after(self, sequence: int, limit: int) -> list[Posting]:
        query = select(ledger).where(ledger.c.sequence > sequence).order_by(ledger.c.sequence).limit(limit)
        return [_posting(row) for row in self._conn.execute(query)]

    def _next(self, series: str) -> int:
        query = update(counters).where(counters.c.name == series).values(value=counters.c.value + 1)
        return int(self._conn.execute(query.returning(counters.c.value)).scalar_one())

    def _subscription(self, query: Any) -> Subscription | None:
        row = self._conn.execute(query).first()
        return None if row is None else _subscription(row._mapping)

    def _invoice(self, condition: Any) -> Invoice | None:
        row = self._conn.execute(select(invoices).where(condition)).first()
        return None if row is None else _invoice(row)


def _progress(subscription: Subscription) -> dict[str, Any]:
    """The columns of a subscription that change."""
    step = next_step(subscription)
    return {
        "state": subscription.state.value,
        "period_index": subscription.period_index,
        "period_start_time": subscription.period.start,
        "period_end_time": subscription.period.end,
        "cancel_time": subscription.cancel_time,
        "step_time": step.time if step else None,
    }


def _plan(row: Any, plan_id: str, prefix: str = "") -> Plan:
    return Plan(
        id=plan_id,
        display_name=row[prefix + "display_name"],
        price=Money(currency_code=row[prefix + "currency_code"], amount_minor=row[prefix + "price_minor"]),
        interval=Interval(row[prefix + "interval_months"]),
        trial_period_days=row[prefix + "trial_period_days"],
        concurrent_stream_limit=row[prefix + "concurrent_stream_limit"],
        archived=row[prefix + "archived"],
        create_time=row[prefix + "create_time"],
    )


def _subscription(row: Any) -> Subscription:
    return Subscription(
        id=row["id"],
        user_id=row["user_id"],
        plan=_plan(row, row["plan_id"], "plan_"),
        state=State(row["state"]),
        anchor_time=row["anchor_time"],
        period_index=row["period_index"],
        period=Period(start=row["period_start_time"], end=row["period_end_time"]),
        trial_end_time=row["trial_end_time"],
        cancel_time=row["cancel_time"],
        create_time=row["create_time"],
    )


def _invoice(row: Any) -> Invoice:
    return Invoice(
        id=row.id,
        serial=row.serial,
        user_id=row.user_id,
        subscription_id=row.subscription_id,
        state=InvoiceState(row.state),
        description=row.description,
        period=Period(start=row.period_start_time, end=row.period_end_time),
        total=Money(currency_code=row.currency_code, amount_minor=row.total_minor),
        create_time=row.create_time,
        due_time=row.due_time,
        paid_time=row.paid_time,
    )


def _posting(row: Any) -> Posting:
    return Posting(
        sequence=row.sequence,
        debit_account=row.debit_account,
        credit_account=row.credit_account,
        amount=Money(currency_code=row.currency_code, amount_minor=row.amount_minor),
        cause=row.cause,
        create_time=row.create_time,
    )
