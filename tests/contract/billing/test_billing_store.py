from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.billing.model import (
    CASH,
    DEFERRED_REVENUE,
    REVENUE,
    AlreadySubscribed,
    AmountMismatch,
    Interval,
    InvoiceNotOpen,
    InvoiceState,
    PlanArchived,
    State,
    Subscription,
    begin,
)
from services.billing.money import Money
from services.billing.store_sql import metadata
from services.runtime.clock import ManualClock
from services.runtime.errors import AlreadyExists, InvalidArgument, NotFound
from services.runtime.ids import new_id
from services.runtime.sql import Database
from tests.support.billing import FREE, PRICE, Desk, balances, utc
from tests.support.databases import sqlite_database

START = utc("2025-01-31T10:00:00.123456")
WEEK = timedelta(days=7)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def desk(sql_database: Database, clock: ManualClock) -> Desk:
    return Desk(sql_database, clock)


async def test_the_migrations_add_up_to_the_tables_the_store_uses(sql_database: Database) -> None:
    def columns(conn: Connection) -> dict[str, set[str]]:
        found = inspect(conn)
        return {
            table: {column["name"] for column in found.get_columns(table)}
            for table in found.get_table_names()
            if table != "alembic_version"
        }

    expected = {name: set(table.columns.keys()) for name, table in metadata.tables.items()}
    assert await sql_database.read(columns) == expected


class TestWhatTheDatabaseItselfForbids:
    async def given_an_invoice(self, desk: Desk) -> None:
        _, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        await desk.pay(invoice)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE ledger_entries SET amount_minor = amount_minor + 1",
            "UPDATE ledger_entries SET cause = 'another'",
            "DELETE FROM ledger_entries",
            "DELETE FROM invoices",
            "UPDATE invoices SET state = 'open', paid_time = NULL",
            "UPDATE invoices SET total_minor = 1",
            "UPDATE invoices SET serial = 9",
            "UPDATE plans SET price_minor = 1",
            "DELETE FROM plans",
            "INSERT INTO ledger_entries SELECT 99, debit_account, debit_account, currency_code, amount_minor,"
            " cause, create_time FROM ledger_entries",
            "INSERT INTO ledger_entries SELECT 99, debit_account, credit_account, currency_code, 0, cause,"
            " create_time FROM ledger_entries",
            "INSERT INTO ledger_entries SELECT 99, debit_account, credit_account, currency_code, -1, cause,"
            " create_time FROM ledger_entries",
        ],
    )
    async def test_the_past_is_not_rewritten(
        self, desk: Desk, sql_database: Database, statement: str
    ) -> None:
        await self.given_an_invoice(desk)
        before = await desk.ledger(), await desk.invoices("ann")
        with pytest.raises(DBAPIError):
            await sql_database.write(lambda conn: conn.execute(text(statement)).rowcount)
        assert (await desk.ledger(), await desk.invoices("ann")) == before

    async def test_nor_by_the_engines_own_short_cuts(self, desk: Desk, sql_database: Database) -> None:
        await self.given_an_invoice(desk)
        before = await desk.ledger()
        statements = {
            "sqlite": "REPLACE INTO ledger_entries SELECT * FROM ledger_entries",
            "postgresql": "TRUNCATE ledger_entries",
        }
        with pytest.raises(DBAPIError):
            await sql_database.write(
                lambda conn: conn.execute(text(statements[sql_database.dialect])).rowcount
            )
        assert await desk.ledger() == before

    async def test_an_open_invoice_changes_nothing_but_its_state(
        self, desk: Desk, sql_database: Database
    ) -> None:
        await desk.subscribe("ann", await desk.plan())
        with pytest.raises(DBAPIError):
            await sql_database.write(
                lambda conn: conn.execute(text("UPDATE invoices SET total_minor = 1")).rowcount
            )

    async def test_a_user_has_one_living_subscription(self, desk: Desk) -> None:
        plan = await desk.plan()
        await desk.subscribe("ann", plan)
        second = begin("s2", "ann", plan, START, trial=False).after
        with pytest.raises(IntegrityError):
            await desk.store.write(lambda tx: tx.add_subscription(second))

    async def test_a_period_is_billed_once(self, desk: Desk) -> None:
        subscription, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        await desk.pay(invoice)
        with pytest.raises(IntegrityError):
            await desk.store.write(
                lambda tx: tx.add_invoice("i2", subscription, "again", subscription.period, START)
            )

    async def test_a_plan_is_tried_once(self, desk: Desk) -> None:
        plan = await desk.plan(trial_period_days=7)
        await desk.subscribe("ann", plan)
        again = begin("s2", "ann", plan, START, trial=True).after
        over = replace(again, state=State.CANCELED, cancel_time=START)
        with pytest.raises(IntegrityError):
            await desk.store.write(lambda tx: tx.add_subscription(over))


class TestPlans:
    async def test_what_is_stored_is_what_was_said(self, desk: Desk) -> None:
        plan = await desk.plan(display_name=" Кино 🎬 ", interval=Interval.YEAR, trial_period_days=30)
        assert (plan.display_name, plan.price, plan.create_time) == ("Кино 🎬", PRICE, START)
        assert await desk.billing.get_plan(plan.id) == plan

    async def test_open_ones_come_cheapest_first_within_a_currency(self, desk: Desk) -> None:
        prices = [("USD", 500), ("EUR", 900), ("EUR", 0), ("EUR", 900), ("USD", 100)]
        made = [
            await desk.plan(price=Money(currency_code=code, amount_minor=minor)) for code, minor in prices
        ]
        closed = await desk.plan()
        assert await desk.billing.archive_plan(closed.id) == replace(closed, archived=True)
        assert await desk.billing.archive_plan(closed.id) == replace(closed, archived=True)
        expected = [made[n] for n in (2, 1, 3, 4, 0)]
        assert await desk.billing.list_plans(None, 10) == expected
        for n, plan in enumerate(expected):
            cursor = plan.price.currency_code, plan.price.amount_minor, plan.id
            assert await desk.billing.list_plans(cursor, 10) == expected[n + 1 :]

    async def test_an_archived_plan_takes_nobody_new_but_goes_on(
        self, desk: Desk, clock: ManualClock
    ) -> None:
        plan = await desk.plan(price=FREE)
        await desk.subscribe("ann", plan)
        await desk.billing.archive_plan(plan.id)
        with pytest.raises(PlanArchived):
            await desk.subscribe("bob", plan)
        clock.advance(timedelta(days=100))
        assert (await desk.billing.check_entitlement("ann")).entitled

    @pytest.mark.parametrize(
        "change",
        [
            {"price": Money(currency_code="XXX", amount_minor=1)},
            {"price": Money(currency_code="EUR", amount_minor=-1)},
            {"price": Money(currency_code="EUR", amount_minor=2**63 - 1)},
            {"display_name": "\t"},
        ],
    )
    async def test_nonsense_is_refused(self, desk: Desk, change: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument):
            await desk.plan(**change)
        assert await desk.billing.list_plans(None, 10) == []


class TestMoney:
    async def test_an_invoice_goes_from_receivable_through_deferred_to_earned(
        self, desk: Desk, clock: ManualClock
    ) -> None:
        subscription, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        owed = "receivable/users/ann"
        assert balances(await desk.ledger()) == {f"{owed} EUR": 999, "deferred_revenue EUR": -999}
        await desk.pay(invoice, reference="transfer 17")
        assert balances(await desk.ledger()) == {"cash EUR": 999, "deferred_revenue EUR": -999}
        await desk.billing.cancel_subscription("ann", subscription.id)
        clock.set(subscription.period.end)
        await desk.billing.run_biller()
        assert [(p.debit_account, p.credit_account, p.cause, p.create_time) for p in await desk.ledger()] == [
            (owed, DEFERRED_REVENUE, invoice.name, START),
            (CASH, owed, f"{invoice.name} transfer 17", START),
            (DEFERRED_REVENUE, REVENUE, invoice.name, subscription.period.end),
        ]

    async def test_a_withdrawn_invoice_is_posted_back(self, desk: Desk) -> None:
        subscription, _ = await desk.subscribe("ann", await desk.plan())
        await desk.billing.cancel_subscription("ann", subscription.id)
        assert (await desk.invoices("ann"))[0].state is InvoiceState.VOID
        assert balances(await desk.ledger()) == {}

    @pytest.mark.parametrize(
        "amount", [replace(PRICE, amount_minor=998), replace(PRICE, currency_code="USD"), FREE]
    )
    async def test_a_wrong_amount_moves_nothing(self, desk: Desk, amount: Money) -> None:
        _, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        before = await desk.ledger()
        with pytest.raises(AmountMismatch):
            await desk.pay(invoice, amount, request_id="r")
        assert await desk.ledger() == before
        await desk.pay(invoice, request_id="r")

    async def test_card_numbers_are_not_stored(self, desk: Desk) -> None:
        _, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        with pytest.raises(InvalidArgument):
            await desk.pay(invoice, reference="card 4111 1111 1111 1111")

    async def test_the_same_payment_sent_fifty_times_at_once_has_one_effect(self, desk: Desk) -> None:
        _, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        answers = await asyncio.gather(*(desk.pay(invoice, request_id="r") for _ in range(50)))
        assert answers == [answers[0]] * 50
        assert balances(await desk.ledger())["cash EUR"] == 999

    async def test_of_many_different_payments_at_once_one_succeeds(self, desk: Desk) -> None:
        _, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        results = await asyncio.gather(*(desk.pay(invoice) for _ in range(20)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, BaseException)]
        assert {type(error) for error in refused} == {InvoiceNotOpen}
        assert len(refused) == 19
        assert balances(await desk.ledger())["cash EUR"] == 999

    async def test_the_id_of_another_request_is_refused(self, desk: Desk) -> None:
        plan = await desk.plan()
        _, first = await desk.subscribe("ann", plan)
        _, second = await desk.subscribe("bob", plan)
        assert first
        assert second
        await desk.pay(first, request_id="r")
        with pytest.raises(AlreadyExists) as caught:
            await desk.pay(second, request_id="r")
        assert caught.value.reason == "REQUEST_ID_REUSED"

    async def test_invoices_made_at_once_are_numbered_without_gaps_and_in_the_ledger(
        self, desk: Desk
    ) -> None:
        plan = await desk.plan()
        users = [f"u{n}" for n in range(40)]
        # Every second one fails after it took its number.
        made = await asyncio.gather(
            *(desk.subscribe(user, plan) if n % 2 else self.fail(desk, user) for n, user in enumerate(users)),
            return_exceptions=True,
        )
        invoices = [result[1] for result in made if not isinstance(result, BaseException)]
        assert sorted(invoice.serial for invoice in invoices if invoice) == list(range(1, 21))
        assert [posting.sequence for posting in await desk.ledger()] == list(range(1, 21))

    async def fail(self, desk: Desk, user: str) -> Any:
        plan = await desk.plan()

        def run(tx: Any) -> None:
            subscription = begin(new_id(), user, plan, START, trial=False).after
            tx.add_subscription(subscription)
            tx.add_invoice(new_id(), subscription, "", subscription.period, START)
            raise RuntimeError("after the number was taken")

        await desk.store.write(run)


class TestSubscriptions:
    async def test_one_user_subscribing_many_times_at_once_gets_one(self, desk: Desk) -> None:
        plan = await desk.plan()
        results = await asyncio.gather(
            *(desk.subscribe("ann", plan) for _ in range(20)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, BaseException)]
        assert ({type(error) for error in refused}, len(refused)) == ({AlreadySubscribed}, 19)
        assert len(await desk.invoices("ann")) == 1

    async def test_a_trial_is_given_once_for_a_user_and_plan(self, desk: Desk) -> None:
        plan, other = await desk.plan(trial_period_days=7), await desk.plan(trial_period_days=7)
        first, _ = await desk.subscribe("ann", plan)
        desk.clock.set(first.period.end + WEEK)
        again, invoice = await desk.subscribe("ann", plan)
        assert (first.state, again.state, invoice is None) == (State.TRIALING, State.INCOMPLETE, False)
        await desk.billing.cancel_subscription("ann", again.id)
        assert (await desk.subscribe("ann", other))[0].state is State.TRIALING
        assert (await desk.subscribe("bob", plan))[0].state is State.TRIALING

    async def test_a_lapsed_one_makes_room_before_the_biller_comes(
        self, desk: Desk, clock: ManualClock
    ) -> None:
        plan = await desk.plan()
        await desk.subscribe("ann", plan)
        clock.advance(WEEK)
        assert (await desk.subscribe("ann", plan))[0].state is State.INCOMPLETE
        assert [invoice.state for invoice in await desk.invoices("ann")] == [
            InvoiceState.VOID,
            InvoiceState.OPEN,
        ]

    async def test_a_lapsed_ones_invoice_cannot_be_paid_before_the_biller_comes(
        self, desk: Desk, clock: ManualClock
    ) -> None:
        _, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        before = await desk.ledger()
        clock.advance(WEEK)
        with pytest.raises(InvoiceNotOpen):
            await desk.pay(invoice)
        assert await desk.ledger() == before

    async def test_cancelling_after_the_period_ended_finds_the_next_one_due(
        self, desk: Desk, clock: ManualClock
    ) -> None:
        subscription, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        await desk.pay(invoice)
        clock.set(subscription.period.end + timedelta(days=1))
        cancelled = await desk.billing.cancel_subscription("ann", subscription.id)
        assert (cancelled.state, cancelled.cancel_time) == (State.CANCELED, clock.now())
        assert [made.state for made in await desk.invoices("ann")] == [InvoiceState.PAID, InvoiceState.VOID]

    async def test_they_are_listed_newest_first_and_paged(self, desk: Desk) -> None:
        plan = await desk.plan()
        made: list[Subscription] = []
        for _ in range(3):
            subscription, _ = await desk.subscribe("ann", plan)
            made.insert(0, await desk.billing.cancel_subscription("ann", subscription.id))
        await desk.subscribe("bob", plan)
        assert await desk.billing.list_subscriptions("ann", "", 2) == made[:2]
        assert await desk.billing.list_subscriptions("ann", made[1].id, 2) == made[2:]

    async def test_another_users_is_not_found(self, desk: Desk) -> None:
        subscription, invoice = await desk.subscribe("ann", await desk.plan())
        assert invoice
        with pytest.raises(NotFound):
            await desk.billing.cancel_subscription("bob", subscription.id)
        with pytest.raises(NotFound):
            await desk.billing.get_invoice("bob", invoice.id)
        with pytest.raises(NotFound):
            await desk.pay(replace(invoice, user_id="bob"))
        assert await desk.billing.list_invoices("bob", None, 10) == []


class TestBiller:
    async def populate(self, desk: Desk) -> None:
        plans = [
            await desk.plan(),
            await desk.plan(trial_period_days=10),
            await desk.plan(price=FREE),
            await desk.plan(interval=Interval.YEAR),
        ]
        for n in range(8):
            subscription, invoice = await desk.subscribe(f"u{n}", plans[n % 4])
            if invoice and n < 4:
                await desk.pay(invoice)
            if n == 7:
                await desk.billing.cancel_subscription(f"u{n}", subscription.id)
            desk.clock.advance(timedelta(hours=7))

    async def history(self, desk: Desk) -> list[Any]:
        """Everything but the random identifiers."""
        ids: dict[str, str] = {}
        found: list[Any] = []
        for n in range(8):
            for invoice in await desk.invoices(f"u{n}"):
                ids[invoice.name] = invoice.number
                found.append(replace(invoice, id="", subscription_id=""))
            subscription = await desk.subscription(f"u{n}")
            found.append(replace(subscription, id="", plan=replace(subscription.plan, id="")))
        found += [replace(posting, cause=ids[posting.cause]) for posting in await desk.ledger()]
        return found

    async def test_often_or_once_after_ninety_days_the_books_are_the_same(
        self, desk: Desk, clock: ManualClock, tmp_path: Path
    ) -> None:
        await self.populate(desk)
        start = clock.now()
        async with sqlite_database(tmp_path) as database:
            await database.migrate("services.billing")
            other = Desk(database, ManualClock(START))
            await self.populate(other)
            other.clock.advance(timedelta(days=90))
            assert await other.billing.run_biller() > 8
            while clock.now() < start + timedelta(days=90):
                clock.advance(timedelta(hours=6))
                await desk.billing.run_biller()
            assert await self.history(desk) == await self.history(other)

    async def test_it_takes_more_steps_than_fit_a_transaction_and_then_rests(
        self, desk: Desk, clock: ManualClock
    ) -> None:
        plan = await desk.plan(price=FREE)
        await desk.subscribe("ann", plan)
        clock.set(utc("2035-01-31T10:00:01"))
        assert await desk.billing.run_biller() == 120
        assert await desk.billing.run_biller() == 0
        assert (await desk.subscription("ann")).period_index == 120

    async def test_two_at_once_do_not_bill_twice(self, desk: Desk, clock: ManualClock) -> None:
        plan = await desk.plan()
        for n in range(20):
            _, invoice = await desk.subscribe(f"u{n}", plan)
            assert invoice
            await desk.pay(invoice)
        clock.set(utc("2025-03-01T00:00:00"))
        counts = await asyncio.gather(*(desk.billing.run_biller() for _ in range(3)))
        assert sum(counts) == 20
        assert {len(await desk.invoices(f"u{n}")) for n in range(20)} == {2}
