"""What billing does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from services.billing.model import (
    CASH,
    DEFERRED_REVENUE,
    REVENUE,
    AlreadySubscribed,
    Entitlement,
    Interval,
    Invoice,
    InvoiceState,
    Plan,
    PlanArchived,
    Posting,
    State,
    Step,
    Subscription,
    begin,
    cancel,
    entitlement,
    next_step,
    pay,
    receivable,
    steps_until,
)
from services.billing.money import Money, checked_price, holds_card_number
from services.billing.store import Store, Transaction
from services.runtime.clock import Clock
from services.runtime.errors import InvalidArgument, NotFound
from services.runtime.ids import new_id
from services.runtime.text import display_text

T = TypeVar("T")
#: Steps the biller carries out in one transaction.
_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Once(Generic[T]):
    """A request that takes effect once, and whose first answer is given again."""

    #: Who asked, as a resource name.
    caller: str
    request_id: str
    #: What was asked, without the id.
    request: bytes
    #: Writes the answer down.
    encode: Callable[[T], bytes]


@dataclass(frozen=True, kw_only=True)
class PlanDraft:
    """What an operator says of a new plan."""

    display_name: str
    price: Money
    interval: Interval
    trial_period_days: int
    concurrent_stream_limit: int


class Billing:
    """The use cases; one for each RPC, named like it, and the biller's."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        """`clock` may jump forward by any step."""
        self._store, self._clock = store, clock

    async def create_plan(self, draft: PlanDraft, once: Once[Plan]) -> bytes:
        """The encoded plan. Raises `InvalidArgument`."""
        plan = Plan(
            id=new_id(),
            display_name=display_text(draft.display_name, "plan.display_name"),
            price=checked_price(draft.price, "plan.price"),
            interval=draft.interval,
            trial_period_days=draft.trial_period_days,
            concurrent_stream_limit=draft.concurrent_stream_limit,
            create_time=self._clock.now(),
        )

        def run(tx: Transaction, now: datetime) -> Plan:
            tx.add_plan(plan)
            return plan

        return await self._once("CreatePlan", once, run)

    async def get_plan(self, plan_id: str) -> Plan:
        """Raises `NotFound`."""
        return await self._store.read(lambda tx: _plan(tx, plan_id))

    async def list_plans(self, after: tuple[str, int, str] | None, limit: int) -> list[Plan]:
        """Open plans by (currency, price, id), after that one."""
        return await self._store.read(lambda tx: tx.plans_after(after, limit))

    async def archive_plan(self, plan_id: str) -> Plan:
        """Raises `NotFound`."""

        def run(tx: Transaction) -> Plan:
            plan = _plan(tx, plan_id)
            tx.archive_plan(plan_id)
            return replace(plan, archived=True)

        return await self._store.write(run)

    async def create_subscription(
        self, user_id: str, plan_id: str, once: Once[tuple[Subscription, Invoice | None]]
    ) -> bytes:
        """The subscription and its first invoice, encoded.

        Raises `NotFound`, `PlanArchived` or `AlreadySubscribed`.
        """

        def run(tx: Transaction, now: datetime) -> tuple[Subscription, Invoice | None]:
            plan = _plan(tx, plan_id)
            if plan.archived:
                raise PlanArchived(plan.name)
            latest = tx.latest_subscription(user_id)
            if latest is not None and _settled(tx, latest, now).state is not State.CANCELED:
                raise AlreadySubscribed(latest.name)
            step = begin(new_id(), user_id, plan, now, trial=not tx.had_trial(user_id, plan_id))
            tx.add_subscription(step.after)
            _apply(tx, step)
            return step.after, tx.invoice_of_period(step.after.id, now)

        return await self._once("CreateSubscription", once, run)

    async def list_subscriptions(self, user_id: str, before_id: str, limit: int) -> list[Subscription]:
        """Newest first, older than that one."""
        return await self._store.read(lambda tx: tx.subscriptions_before(user_id, before_id, limit))

    async def cancel_subscription(self, user_id: str, subscription_id: str) -> Subscription:
        """Raises `NotFound`."""

        def run(tx: Transaction) -> Subscription:
            now = self._clock.now()
            subscription = tx.subscription(subscription_id)
            if subscription is None or subscription.user_id != user_id:
                raise NotFound(f"users/{user_id}/subscriptions/{subscription_id}")
            subscription = _settled(tx, subscription, now)
            return _apply(tx, cancel(subscription, now))

        return await self._store.write(run)

    async def get_invoice(self, user_id: str, invoice_id: str) -> Invoice:
        """Raises `NotFound`."""
        return await self._store.read(lambda tx: _invoice(tx, user_id, invoice_id))

    async def list_invoices(self, user_id: str, before_serial: int | None, limit: int) -> list[Invoice]:
        """Newest first, with a serial below that."""
        return await self._store.read(lambda tx: tx.invoices_before(user_id, before_serial, limit))

    async def record_payment(
        self,
        user_id: str,
        invoice_id: str,
        amount: Money,
        reference: str,
        once: Once[tuple[Invoice, Subscription]],
    ) -> bytes:
        """The encoded invoice and subscription. Raises `NotFound`, `InvoiceNotOpen`, `AmountMismatch`."""
        reference = display_text(reference, "reference") if reference else ""
        if holds_card_number(reference):
            raise InvalidArgument("reference", "looks like a card number, which must never be stored")

        def run(tx: Transaction, now: datetime) -> tuple[Invoice, Subscription]:
            subscription = tx.subscription(_invoice(tx, user_id, invoice_id).subscription_id)
            assert subscription is not None
            subscription = _settled(tx, subscription, now)
            invoice, subscription = pay(_invoice(tx, user_id, invoice_id), subscription, amount, now)
            tx.set_invoice_state(invoice.id, invoice.state, now)
            tx.update_subscription(subscription)
            cause = f"{invoice.name} {reference}".strip()
            tx.post(CASH, receivable(user_id), amount, cause, now)
            return invoice, subscription

        return await self._once("RecordPayment", once, run)

    async def list_ledger_entries(self, after_sequence: int, limit: int) -> list[Posting]:
        """In order, after that one."""
        return await self._store.read(lambda tx: tx.postings_after(after_sequence, limit))

    async def check_entitlement(self, user_id: str) -> Entitlement:
        """Right at this instant, whether or not the biller has come by."""
        latest = await self._store.read(lambda tx: tx.latest_subscription(user_id))
        return entitlement(latest, self._clock.now())

    async def run_biller(self) -> int:
        """Carry out every step that is due, oldest first; returns how many there were.

        Nothing depends on when it is called: the books are as if each step had been taken at its instant.
        """
        now, done = self._clock.now(), 0

        def run(tx: Transaction) -> int:
            for count in range(_BATCH):
                due = tx.first_due(now)
                step = next_step(due) if due else None
                if step is None:
                    return count
                _apply(tx, step)
            return _BATCH

        while count := await self._store.write(run):
            done += count
        return done

    async def _once(self, method: str, once: Once[T], run: Callable[[Transaction, datetime], T]) -> bytes:
        def write(tx: Transaction) -> bytes:
            now = self._clock.now()
            scope = f"{once.caller}/{method}"
            return tx.once(scope, once.request_id, once.request, now, lambda: once.encode(run(tx, now)))

        return await self._store.write(write)


def _settled(tx: Transaction, subscription: Subscription, now: datetime) -> Subscription:
    """The subscription after all its steps that are due, carried out now if the biller hasn't."""
    for step in steps_until(subscription, now):
        subscription = _apply(tx, step)
    return subscription


def _apply(tx: Transaction, step: Step) -> Subscription:
    """Carry a step out: subscription, invoices and ledger together."""
    after = step.after
    debtor = receivable(after.user_id)
    tx.update_subscription(after)
    if step.earns and (paid := tx.invoice_of_period(after.id, step.earns.start)):
        tx.post(DEFERRED_REVENUE, REVENUE, paid.total, paid.name, step.time)
    if step.voids and (owed := tx.invoice_of_period(after.id, after.period.start)):
        tx.set_invoice_state(owed.id, InvoiceState.VOID, None)
        tx.post(DEFERRED_REVENUE, debtor, owed.total, owed.name, step.time)
    if step.bills:
        made = tx.add_invoice(new_id(), after, after.plan.display_name, step.bills, step.time)
        tx.post(debtor, DEFERRED_REVENUE, made.total, made.name, step.time)
    return after


def _plan(tx: Transaction, plan_id: str) -> Plan:
    plan = tx.plan(plan_id)
    if plan is None:
        raise NotFound(f"plans/{plan_id}")
    return plan


def _invoice(tx: Transaction, user_id: str, invoice_id: str) -> Invoice:
    invoice = tx.invoice(invoice_id)
    if invoice is None or invoice.user_id != user_id:
        raise NotFound(f"users/{user_id}/invoices/{invoice_id}")
    return invoice
