"""Plans, subscriptions and invoices, and how time changes them: pure rules.

A subscription's whole future follows from what is stored: `next_step` tells what happens next and when.
Whoever carries the steps out, however often or late, comes to the same books.
"""

from __future__ import annotations

import calendar
import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.billing.money import Money
from services.runtime.errors import AlreadyExists, FailedPrecondition

#: How long a due invoice may stay unpaid before its subscription ends. Shorter than any period: so at most
#: one invoice of a subscription is open.
GRACE = timedelta(days=7)
#: The longest an answer about entitlement may be kept.
ENTITLEMENT_TTL = timedelta(seconds=60)

#: Accounts of the ledger; what a user owes is on `receivable(user)`.
CASH = "cash"
#: Billed, not yet delivered.
DEFERRED_REVENUE = "deferred_revenue"
#: Billed, paid and delivered.
REVENUE = "revenue"


class AlreadySubscribed(AlreadyExists):
    """The user has a subscription already: {subscription}; cancel it first."""

    reason = "ALREADY_SUBSCRIBED"
    fields = ("subscription",)


class PlanArchived(FailedPrecondition):
    """{subject} is closed to new subscriptions."""

    reason = "PLAN_ARCHIVED"
    fields = ("subject",)


class InvoiceNotOpen(FailedPrecondition):
    """{subject} is {state}: there is nothing to pay."""

    reason = "INVOICE_NOT_OPEN"
    fields = ("subject", "state")


class AmountMismatch(FailedPrecondition):
    """{subject} must be paid in full: {total_minor} {currency_code} minor units, no more and no less."""

    reason = "AMOUNT_MISMATCH"
    fields = ("subject", "total_minor", "currency_code")


class Interval(enum.Enum):
    """Length of a billing period; the value is the number of months."""

    MONTH = 1
    YEAR = 12


class State(enum.Enum):
    """Where a subscription stands; see the contract."""

    TRIALING = "trialing"
    INCOMPLETE = "incomplete"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELED = "canceled"


class InvoiceState(enum.Enum):
    """Where an invoice stands."""

    OPEN = "open"
    PAID = "paid"
    VOID = "void"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What can be subscribed to; nothing of it changes but `archived`."""

    id: str
    display_name: str
    price: Money
    interval: Interval
    trial_period_days: int
    concurrent_stream_limit: int
    archived: bool = False
    create_time: datetime

    @property
    def name(self) -> str:
        """Resource name."""
        return f"plans/{self.id}"

    @property
    def free(self) -> bool:
        """Whether there is nothing to pay, and so never an invoice."""
        return self.price.amount_minor == 0


@dataclass(frozen=True, kw_only=True)
class Period:
    """A stretch of time, its end excluded."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A user's standing order for a plan."""

    id: str
    user_id: str
    plan: Plan
    state: State
    #: All billing dates are computed from it.
    anchor_time: datetime
    #: Number of the period that runs now, counted from the anchor; -1 is the trial before it.
    period_index: int
    period: Period
    trial_end_time: datetime | None = None
    #: When it ends, or ended.
    cancel_time: datetime | None = None
    create_time: datetime

    @property
    def name(self) -> str:
        """Resource name."""
        return f"users/{self.user_id}/subscriptions/{self.id}"

    @property
    def entitles(self) -> bool:
        """Whether its user may watch."""
        return self.state in (State.TRIALING, State.ACTIVE, State.PAST_DUE)


@dataclass(frozen=True, kw_only=True)
class Invoice:
    """A bill for one period of a subscription."""

    id: str
    #: Position in the deployment's series, from 1, without gaps.
    serial: int
    user_id: str
    subscription_id: str
    state: InvoiceState = InvoiceState.OPEN
    description: str
    period: Period
    total: Money
    create_time: datetime
    due_time: datetime
    paid_time: datetime | None = None

    @property
    def name(self) -> str:
        """Resource name."""
        return f"users/{self.user_id}/invoices/{self.id}"

    @property
    def number(self) -> str:
        """The serial as printed."""
        return f"KINO-{self.serial:06d}"


@dataclass(frozen=True, kw_only=True)
class Posting:
    """One row of the ledger, zero by its shape: one amount, from one account to another."""

    sequence: int
    debit_account: str
    credit_account: str
    amount: Money
    cause: str
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens to a subscription at one instant."""

    time: datetime
    #: How it stands afterwards.
    after: Subscription
    #: The period to make an invoice for.
    bills: Period | None = None
    #: The paid period that has been delivered.
    earns: Period | None = None
    #: Whether the open invoice is withdrawn.
    voids: bool = False


@dataclass(frozen=True, kw_only=True)
class Entitlement:
    """What a user may watch; `reason` says why not."""

    entitled: bool
    concurrent_stream_limit: int = 0
    subscription: str = ""
    expire_time: datetime
    reason: str = ""


def receivable(user_id: str) -> str:
    """The ledger account of what a user owes."""
    return f"receivable/users/{user_id}"


def billing_date(anchor: datetime, interval: Interval, n: int) -> datetime:
    """Start of period `n`: anchor + n periods in UTC, on a month's last day where it lacks the anchor's."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + n * interval.value, 12)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)


def billing_period(anchor: datetime, interval: Interval, n: int) -> Period:
    """Period `n`; it ends where the next begins."""
    return Period(start=billing_date(anchor, interval, n), end=billing_date(anchor, interval, n + 1))


def begin(subscription_id: str, user_id: str, plan: Plan, now: datetime, *, trial: bool) -> Step:
    """A new subscription, with its trial or with the first invoice unless it is free."""
    trial_end = now + timedelta(days=plan.trial_period_days) if trial and plan.trial_period_days else None
    anchor = trial_end or now
    period = Period(start=now, end=anchor) if trial_end else billing_period(anchor, plan.interval, 0)
    unpaid = State.ACTIVE if plan.free else State.INCOMPLETE
    subscription = Subscription(
        id=subscription_id,
        user_id=user_id,
        plan=plan,
        state=State.TRIALING if trial_end else unpaid,
        anchor_time=anchor,
        period_index=-1 if trial_end else 0,
        period=period,
        trial_end_time=trial_end,
        create_time=now,
    )
    return Step(time=now, after=subscription, bills=None if trial_end or plan.free else period)


def next_step(subscription: Subscription) -> Step | None:
    """What time alone will do next; None when the subscription is over."""
    match subscription.state:
        case State.CANCELED:
            return None
        case State.INCOMPLETE | State.PAST_DUE:
            time = subscription.period.start + GRACE
            return Step(time=time, after=_ended(subscription, time), voids=True)
        case _:
            return _turn(subscription)


def steps_until(subscription: Subscription, now: datetime) -> Iterator[Step]:
    """All steps up to and including `now`, in order."""
    step = next_step(subscription)
    while step is not None and step.time <= now:
        yield step
        step = next_step(step.after)


def _turn(subscription: Subscription) -> Step:
    """The end of a trial or of a period that needs no payment any more."""
    plan, time = subscription.plan, subscription.period.end
    delivered = subscription.state is State.ACTIVE and not plan.free
    earns = subscription.period if delivered else None
    if subscription.cancel_time is not None:
        return Step(time=time, after=_ended(subscription, time), earns=earns)
    n = subscription.period_index + 1
    period = billing_period(subscription.anchor_time, plan.interval, n)
    unpaid = State.INCOMPLETE if n == 0 else State.PAST_DUE
    after = replace(subscription, state=State.ACTIVE if plan.free else unpaid, period_index=n, period=period)
    return Step(time=time, after=after, bills=None if plan.free else period, earns=earns)


def cancel(subscription: Subscription, now: datetime) -> Step:
    """Cancel at the end of what is paid or tried: at once when nothing is, withdrawing the open invoice."""
    if subscription.state in (State.INCOMPLETE, State.PAST_DUE):
        return Step(time=now, after=_ended(subscription, now), voids=True)
    if subscription.cancel_time is not None:
        return Step(time=now, after=subscription)
    return Step(time=now, after=replace(subscription, cancel_time=subscription.period.end))


def pay(
    invoice: Invoice, subscription: Subscription, amount: Money, now: datetime
) -> tuple[Invoice, Subscription]:
    """Both as they stand once the invoice is paid. Raises `InvoiceNotOpen` or `AmountMismatch`."""
    if invoice.state is not InvoiceState.OPEN:
        raise InvoiceNotOpen(invoice.name, invoice.state.value)
    if amount != invoice.total:
        raise AmountMismatch(invoice.name, invoice.total.amount_minor, invoice.total.currency_code)
    paid = replace(invoice, state=InvoiceState.PAID, paid_time=now)
    return paid, replace(subscription, state=State.ACTIVE)


def entitlement(subscription: Subscription | None, now: datetime) -> Entitlement:
    """What the user's living or else latest subscription gives at `now`, due steps included."""
    latest = now + ENTITLEMENT_TTL
    if subscription is None:
        return Entitlement(entitled=False, expire_time=latest, reason="NO_SUBSCRIPTION")
    for step in steps_until(subscription, now):
        subscription = step.after
    coming = next_step(subscription)
    expires = min(latest, coming.time) if coming else latest
    if subscription.entitles:
        limit = subscription.plan.concurrent_stream_limit
        return Entitlement(
            entitled=True, concurrent_stream_limit=limit, subscription=subscription.name, expire_time=expires
        )
    ended = subscription.state is State.CANCELED
    reason = "SUBSCRIPTION_ENDED" if ended else "INVOICE_UNPAID"
    return Entitlement(entitled=False, subscription=subscription.name, expire_time=expires, reason=reason)


def _ended(subscription: Subscription, time: datetime) -> Subscription:
    return replace(subscription, state=State.CANCELED, cancel_time=time)
