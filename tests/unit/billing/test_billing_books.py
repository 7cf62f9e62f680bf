"""Billing over random lives, against an oracle that knows nothing of steps."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from services.billing.model import (
    AlreadySubscribed,
    Entitlement,
    Interval,
    Invoice,
    InvoiceNotOpen,
    InvoiceState,
    Plan,
    State,
    Subscription,
    billing_date,
)
from services.billing.money import Money
from services.runtime.clock import ManualClock
from services.runtime.sql import Database
from tests.support.billing import Desk, balances, utc

T = TypeVar("T")
USERS = ("ann", "bob")
WEEK = timedelta(days=7)


@dataclass
class Life:
    """What happened to one subscription; enough to tell what it must look like at any time."""

    plan: Plan
    start: datetime
    trial: bool
    payments: list[datetime] = field(default_factory=list)
    cancelled: datetime | None = None

    def story(self, now: datetime) -> tuple[State, int, datetime | None]:
        """State, number of invoices and end, by walking through the periods from the beginning."""
        anchor = self.start + timedelta(days=self.plan.trial_period_days) if self.trial else self.start
        if now < anchor:
            return State.TRIALING, 0, anchor if self.cancelled else None
        if self.trial and self.cancelled and self.cancelled < anchor:
            return State.CANCELED, 0, anchor
        free = self.plan.price.amount_minor == 0
        for n in range(10_000):
            start, end = (billing_date(anchor, self.plan.interval, n + i) for i in (0, 1))
            paid = free or any(start <= payment < end for payment in self.payments)
            deadline = min(start + WEEK, self.cancelled or start + WEEK)
            bills = 0 if free else n + 1
            if not paid:
                if now >= deadline:
                    return State.CANCELED, bills, deadline
                return (State.PAST_DUE if n else State.INCOMPLETE), bills, None
            leaving = self.cancelled is not None and self.cancelled < end
            if now < end:
                return State.ACTIVE, bills, end if leaving else None
            if leaving:
                return State.CANCELED, bills, end
        raise AssertionError("a life without end")


class Books(RuleBasedStateMachine):
    plans: Bundle[Plan] = Bundle("plans")
    requests: Bundle[tuple[str, Plan, str, tuple[Subscription, Invoice | None]]] = Bundle("requests")
    payments: Bundle[tuple[str, tuple[Invoice, Subscription]]] = Bundle("payments")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        # In memory where the machine offers that: these many small commits would wait for the disk.
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'billing.db'}")
        self.run(self.database.migrate("services.billing"))
        self.clock = ManualClock(utc("2024-01-31T22:30:00"))
        self.desk = Desk(self.database, self.clock)
        self.lives: dict[str, list[Life]] = {user: [] for user in USERS}
        self.number = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.database.close())
        self.loop.close()
        self.folder.cleanup()

    def fresh_id(self) -> str:
        self.number += 1
        return f"request-{self.number}"

    @initialize(target=plans, first=st.tuples(*[st.integers(0, 3)] * len(USERS)))
    def some_plans_and_a_subscription_for_everybody(self, first: tuple[int, ...]) -> Any:
        def make(minor: int, currency: str, interval: Interval, trial: int) -> Plan:
            price = Money(currency_code=currency, amount_minor=minor)
            return self.run(self.desk.plan(price=price, interval=interval, trial_period_days=trial))

        made = (
            make(999, "EUR", Interval.MONTH, 0),
            make(1500, "JPY", Interval.MONTH, 14),
            make(9900, "EUR", Interval.YEAR, 365),
            make(0, "EUR", Interval.MONTH, 0),
        )
        for user, number in zip(USERS, first, strict=True):
            self.join(user, made[number])
        return multiple(*made)

    @rule(target=requests, user=st.sampled_from(USERS), plan=plans)
    def subscribe(self, user: str, plan: Plan) -> Any:
        return self.join(user, plan)

    def join(self, user: str, plan: Plan) -> Any:
        request_id, now = self.fresh_id(), self.clock.now()
        lives = self.lives[user]
        alive = bool(lives) and lives[-1].story(now)[0] is not State.CANCELED
        try:
            answer = self.run(self.desk.subscribe(user, plan, request_id))
        except AlreadySubscribed:
            assert alive
            return multiple()
        assert not alive
        tried = any(life.trial and life.plan == plan for life in lives)
        lives.append(Life(plan=plan, start=now, trial=bool(plan.trial_period_days) and not tried))
        return user, plan, request_id, answer

    @rule(target=requests, user=st.sampled_from(USERS))
    def come_back(self, user: str) -> Any:
        if not self.lives[user]:
            return multiple()
        self.leave(user)
        self.clock.set(max(self.clock.now(), self.run(self.desk.subscription(user)).period.end))
        return self.join(user, self.lives[user][-1].plan)

    @rule(request=requests)
    def subscribe_again_with_the_same_id(self, request: Any) -> None:
        user, plan, request_id, answer = request
        before = self.books()
        assert self.run(self.desk.subscribe(user, plan, request_id)) == answer
        assert self.books() == before

    @rule(target=payments, user=st.sampled_from(USERS))
    def pay(self, user: str) -> Any:
        return self.settle(user)

    def settle(self, user: str) -> Any:
        self.run(self.desk.billing.run_biller())
        owed = [i for i in self.run(self.desk.invoices(user)) if i.state is InvoiceState.OPEN]
        if not owed:
            return multiple()
        request_id = self.fresh_id()
        answer = self.run(self.desk.pay(owed[0], request_id=request_id))
        self.lives[user][-1].payments.append(self.clock.now())
        return request_id, answer

    @rule(payment=payments)
    def pay_again_with_the_same_id(self, payment: Any) -> None:
        request_id, answer = payment
        before = self.books()
        assert self.run(self.desk.pay(answer[0], request_id=request_id)) == answer
        assert self.books() == before

    @rule(payment=payments)
    def pay_again_with_another_id(self, payment: Any) -> None:
        before = self.books()
        try:
            self.run(self.desk.pay(payment[1][0]))
        except InvoiceNotOpen:
            assert self.books() == before
        else:
            raise AssertionError("an invoice was paid twice")

    @rule(user=st.sampled_from(USERS))
    def pay_what_a_late_biller_has_not_withdrawn(self, user: str) -> None:
        self.pay_what_is_withdrawn(user)

    def pay_what_is_withdrawn(self, user: str) -> None:
        now, life = self.clock.now(), self.lives[user][-1] if self.lives[user] else None
        owed = [i for i in self.run(self.desk.invoices(user)) if i.state is InvoiceState.OPEN]
        if life is None or not owed or life.story(now)[0] is not State.CANCELED:
            return
        try:
            self.run(self.desk.pay(owed[0]))
        except InvoiceNotOpen:
            return
        raise AssertionError("an invoice of an ended subscription was paid")

    @rule(user=st.sampled_from(USERS))
    def cancel(self, user: str) -> None:
        self.leave(user)

    def leave(self, user: str) -> None:
        if self.lives[user]:
            life, now = self.lives[user][-1], self.clock.now()
            if life.story(now)[0] is not State.CANCELED and life.cancelled is None:
                life.cancelled = now
            newest = self.run(self.desk.subscription(user))
            self.run(self.desk.billing.cancel_subscription(user, newest.id))

    @rule(
        user=st.sampled_from(USERS),
        periods=st.integers(1, 14),
        end=st.sampled_from(["stays", "leaves", "pays too late"]),
    )
    def stay(self, user: str, periods: int, end: str) -> None:
        for _ in range(periods):
            self.settle(user)
            newest = self.subscriptions(user)[-1:]
            if not newest or newest[0].state is State.CANCELED:
                return
            self.clock.set(newest[0].period.end)
        self.run(self.desk.billing.run_biller())
        if end == "leaves":
            self.leave(user)
        elif end == "pays too late":
            self.clock.advance(WEEK)
            self.pay_what_is_withdrawn(user)

    @rule(step=st.integers(1, 3 * 86_400) | st.integers(1, 40 * 86_400) | st.integers(1, 500 * 86_400))
    def wait(self, step: int) -> None:
        self.clock.advance(step)

    @rule()
    def bill(self) -> None:
        self.run(self.desk.billing.run_biller())
        for user in USERS:
            for life, found in zip(self.lives[user], self.subscriptions(user), strict=True):
                state, bills, end = life.story(self.clock.now())
                invoices = [i for i in self.run(self.desk.invoices(user)) if i.subscription_id == found.id]
                assert (found.state, len(invoices), found.cancel_time) == (state, bills, end)
        assert self.run(self.desk.billing.run_biller()) == 0

    def subscriptions(self, user: str) -> list[Subscription]:
        return self.run(self.desk.billing.list_subscriptions(user, "", 1000))[::-1]

    def all_invoices(self) -> list[Invoice]:
        return [invoice for user in USERS for invoice in self.run(self.desk.invoices(user))]

    def books(self) -> Any:
        subscriptions = [self.subscriptions(user) for user in USERS]
        return subscriptions, self.all_invoices(), self.run(self.desk.ledger())

    @invariant()
    def the_ledger_is_even_and_receivables_are_the_open_invoices(self) -> None:
        ledger, invoices = self.run(self.desk.ledger()), self.all_invoices()
        assert balances(ledger, key=lambda account: "all") == {}
        owed: Counter[str] = Counter()
        cash: Counter[str] = Counter()
        for invoice in invoices:
            if invoice.state is InvoiceState.OPEN:
                owed[f"receivable/users/{invoice.user_id} {invoice.total.currency_code}"] += (
                    invoice.total.amount_minor
                )
            if invoice.state is InvoiceState.PAID:
                cash[f"cash {invoice.total.currency_code}"] += invoice.total.amount_minor
        found = balances(ledger)
        assert {name: value for name, value in found.items() if name.startswith("receivable")} == owed
        assert {name: value for name, value in found.items() if name.startswith("cash")} == cash
        assert [posting.sequence for posting in ledger] == list(range(1, len(ledger) + 1))

    @invariant()
    def earned_is_what_was_paid_for_periods_that_are_over(self) -> None:
        running = {
            (s.id, s.period.start)
            for user in USERS
            for s in self.subscriptions(user)
            if s.state is State.ACTIVE
        }
        earned: Counter[str] = Counter()
        for invoice in self.all_invoices():
            over = (invoice.subscription_id, invoice.period.start) not in running
            if invoice.state is InvoiceState.PAID and over:
                earned[f"revenue {invoice.total.currency_code}"] -= invoice.total.amount_minor
        found = balances(self.run(self.desk.ledger()))
        assert {name: value for name, value in found.items() if name.startswith("revenue")} == earned

    @invariant()
    def invoice_numbers_have_no_gap(self) -> None:
        serials = sorted(invoice.serial for invoice in self.all_invoices())
        assert serials == list(range(1, len(serials) + 1))

    @invariant()
    def billed_periods_tile_from_the_anchor_without_gap_or_overlap(self) -> None:
        for user in USERS:
            for subscription in self.subscriptions(user):
                billed = [
                    i for i in self.run(self.desk.invoices(user)) if i.subscription_id == subscription.id
                ]
                dates = [
                    billing_date(subscription.anchor_time, subscription.plan.interval, n)
                    for n in range(len(billed) + 1)
                ]
                periods = [(invoice.period.start, invoice.period.end) for invoice in billed]
                assert periods == list(pairwise(dates))
                assert {i.create_time - i.period.start for i in billed} <= {timedelta(0)}

    @invariant()
    def an_ended_subscription_owes_nothing(self) -> None:
        ended = {s.id for user in USERS for s in self.subscriptions(user) if s.state is State.CANCELED}
        owing = {i.subscription_id for i in self.all_invoices() if i.state is InvoiceState.OPEN}
        assert not ended & owing

    @invariant()
    def entitlement_agrees_with_the_story_whether_or_not_the_biller_came(self) -> None:
        now = self.clock.now()
        for user in USERS:
            answer: Entitlement = self.run(self.desk.billing.check_entitlement(user))
            lives = self.lives[user]
            state = lives[-1].story(now)[0] if lives else None
            entitled = state in (State.TRIALING, State.ACTIVE, State.PAST_DUE)
            reasons = {
                None: "NO_SUBSCRIPTION",
                State.INCOMPLETE: "INVOICE_UNPAID",
                State.CANCELED: "SUBSCRIPTION_ENDED",
            }
            assert (answer.entitled, answer.reason) == (entitled, reasons.get(state, ""))
            assert now < answer.expire_time <= now + timedelta(seconds=60)


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
