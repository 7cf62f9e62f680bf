from __future__ import annotations

import calendar
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.model import (
    ENTITLEMENT_TTL,
    GRACE,
    AmountMismatch,
    Entitlement,
    Interval,
    Invoice,
    InvoiceNotOpen,
    InvoiceState,
    Period,
    Plan,
    State,
    Step,
    Subscription,
    begin,
    billing_date,
    billing_period,
    cancel,
    entitlement,
    next_step,
    pay,
    steps_until,
)
from services.billing.money import Money
from tests.support.billing import FREE, PRICE, utc

NOW = utc("2025-01-31T12:00:00")
PLAN = Plan(
    id="p",
    display_name="Films",
    price=PRICE,
    interval=Interval.MONTH,
    trial_period_days=14,
    concurrent_stream_limit=2,
    create_time=NOW,
)
FIRST = Period(start=NOW, end=utc("2025-02-28T12:00:00"))
SECOND = Period(start=FIRST.end, end=utc("2025-03-31T12:00:00"))
NEW = Subscription(
    id="s",
    user_id="u",
    plan=PLAN,
    state=State.INCOMPLETE,
    anchor_time=NOW,
    period_index=0,
    period=FIRST,
    create_time=NOW,
)
ACTIVE = replace(NEW, state=State.ACTIVE)
PAST_DUE = replace(NEW, state=State.PAST_DUE, period_index=1, period=SECOND)
TRIAL_END = NOW + timedelta(days=14)
TRIALING = replace(
    NEW,
    state=State.TRIALING,
    anchor_time=TRIAL_END,
    period_index=-1,
    period=Period(start=NOW, end=TRIAL_END),
    trial_end_time=TRIAL_END,
)

anchors = st.integers(946_684_800, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
intervals = st.sampled_from(Interval)
numbers = st.integers(0, 600)


class TestBillingDates:
    @pytest.mark.parametrize(
        ("anchor", "interval", "dates"),
        [
            ("2025-01-31", Interval.MONTH, ["01-31", "02-28", "03-31", "04-30", "05-31"]),
            ("2024-01-31", Interval.MONTH, ["01-31", "02-29", "03-31", "04-30", "05-31"]),
            ("2025-10-30", Interval.MONTH, ["10-30", "11-30", "12-30", "01-30", "02-28"]),
            ("2024-02-29", Interval.YEAR, ["02-29", "02-28", "02-28", "02-28", "02-29"]),
        ],
    )
    def test_a_day_the_month_lacks_becomes_its_last_and_comes_back(
        self, anchor: str, interval: Interval, dates: list[str]
    ) -> None:
        start = utc(anchor + "T23:59:59.999999")
        found = [billing_date(start, interval, n) for n in range(5)]
        assert [date.strftime("%m-%d") for date in found] == dates
        assert {date.timetz() for date in found} == {start.timetz()}

    @given(anchors, intervals, numbers)
    def test_date_n_agrees_with_counting_the_months_one_by_one(
        self, anchor: datetime, interval: Interval, n: int
    ) -> None:
        year, month = anchor.year, anchor.month
        for _ in range(n * interval.value):
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        last = calendar.monthrange(year, month)[1]
        assert billing_date(anchor, interval, n) == anchor.replace(
            year=year, month=month, day=anchor.day if anchor.day <= last else last
        )

    @given(anchors, intervals, numbers)
    def test_periods_tile_and_are_longer_than_the_grace(
        self, anchor: datetime, interval: Interval, n: int
    ) -> None:
        period = billing_period(anchor, interval, n)
        assert period.end == billing_period(anchor, interval, n + 1).start
        assert period.end - period.start >= timedelta(days=28) > GRACE


class TestBeginning:
    def test_a_paid_plan_starts_incomplete_with_its_first_invoice(self) -> None:
        assert begin("s", "u", PLAN, NOW, trial=False) == Step(time=NOW, after=NEW, bills=FIRST)

    def test_a_trial_is_billed_from_its_end_on(self) -> None:
        assert begin("s", "u", PLAN, NOW, trial=True) == Step(time=NOW, after=TRIALING)

    def test_a_plan_without_trial_has_none_to_give(self) -> None:
        plan = replace(PLAN, trial_period_days=0)
        assert begin("s", "u", plan, NOW, trial=True).after == replace(NEW, plan=plan)

    def test_a_free_plan_is_active_at_once_and_never_billed(self) -> None:
        plan = replace(PLAN, price=FREE)
        step = begin("s", "u", plan, NOW, trial=False)
        assert step == Step(time=NOW, after=replace(ACTIVE, plan=plan))
        assert [s.bills for s in steps_until(step.after, utc("2026-01-31T12:00:00"))] == [None] * 12


class TestTime:
    def test_a_paid_period_ends_delivered_and_the_next_is_due(self) -> None:
        after = replace(ACTIVE, state=State.PAST_DUE, period_index=1, period=SECOND)
        assert next_step(ACTIVE) == Step(time=FIRST.end, after=after, bills=SECOND, earns=FIRST)

    def test_a_trial_ends_in_the_first_invoice(self) -> None:
        first = Period(start=TRIAL_END, end=utc("2025-03-14T12:00:00"))
        after = replace(TRIALING, state=State.INCOMPLETE, period_index=0, period=first)
        assert next_step(TRIALING) == Step(time=TRIAL_END, after=after, bills=first)

    @pytest.mark.parametrize("unpaid", [NEW, PAST_DUE], ids=["first", "later"])
    def test_an_invoice_unpaid_for_seven_days_ends_the_subscription(self, unpaid: Subscription) -> None:
        time = unpaid.period.start + timedelta(days=7)
        after = replace(unpaid, state=State.CANCELED, cancel_time=time)
        assert next_step(unpaid) == Step(time=time, after=after, voids=True)
        assert next_step(after) is None

    def test_a_cancelled_period_runs_out(self) -> None:
        cancelled = replace(ACTIVE, cancel_time=FIRST.end)
        after = replace(cancelled, state=State.CANCELED)
        assert next_step(cancelled) == Step(time=FIRST.end, after=after, earns=FIRST)

    def test_nothing_happens_a_microsecond_early(self) -> None:
        assert list(steps_until(ACTIVE, FIRST.end - timedelta(microseconds=1))) == []
        assert len(list(steps_until(ACTIVE, FIRST.end))) == 1


class TestCancelling:
    @pytest.mark.parametrize("living", [ACTIVE, TRIALING], ids=["paid", "trial"])
    def test_it_goes_on_to_the_end_of_what_is_paid_or_tried(self, living: Subscription) -> None:
        assert cancel(living, NOW) == Step(time=NOW, after=replace(living, cancel_time=living.period.end))

    @pytest.mark.parametrize("unpaid", [NEW, PAST_DUE], ids=["first", "later"])
    def test_what_is_not_paid_ends_at_once_and_its_invoice_is_void(self, unpaid: Subscription) -> None:
        after = replace(unpaid, state=State.CANCELED, cancel_time=NOW)
        assert cancel(unpaid, NOW) == Step(time=NOW, after=after, voids=True)

    @pytest.mark.parametrize("living", [ACTIVE, TRIALING, NEW])
    def test_a_second_time_changes_nothing(self, living: Subscription) -> None:
        once = cancel(living, NOW).after
        assert cancel(once, NOW + timedelta(1)).after == once


class TestPaying:
    invoice = Invoice(
        id="i",
        serial=7,
        user_id="u",
        subscription_id="s",
        description="Films",
        period=FIRST,
        total=PRICE,
        create_time=NOW,
        due_time=NOW,
    )

    @pytest.mark.parametrize("unpaid", [NEW, PAST_DUE])
    def test_it_makes_the_subscription_active(self, unpaid: Subscription) -> None:
        assert pay(self.invoice, unpaid, PRICE, NOW) == (
            replace(self.invoice, state=InvoiceState.PAID, paid_time=NOW),
            replace(unpaid, state=State.ACTIVE),
        )

    @pytest.mark.parametrize("amount", [998, 1000, -999, 0])
    def test_only_the_exact_amount_will_do(self, amount: int) -> None:
        with pytest.raises(AmountMismatch):
            pay(self.invoice, NEW, replace(PRICE, amount_minor=amount), NOW)

    def test_only_the_exact_currency_will_do(self) -> None:
        with pytest.raises(AmountMismatch):
            pay(self.invoice, NEW, Money(currency_code="USD", amount_minor=999), NOW)

    @pytest.mark.parametrize("state", [InvoiceState.PAID, InvoiceState.VOID])
    def test_only_an_open_invoice_can_be_paid(self, state: InvoiceState) -> None:
        with pytest.raises(InvoiceNotOpen):
            pay(replace(self.invoice, state=state), NEW, PRICE, NOW)

    def test_its_number_is_as_printed(self) -> None:
        assert self.invoice.number == "KINO-000007"


class TestEntitlement:
    latest = NOW + ENTITLEMENT_TTL

    def refused(self, reason: str, expire_time: datetime = latest) -> Entitlement:
        return Entitlement(entitled=False, subscription=NEW.name, expire_time=expire_time, reason=reason)

    def granted(self, expire_time: datetime = latest) -> Entitlement:
        return Entitlement(
            entitled=True, concurrent_stream_limit=2, subscription=NEW.name, expire_time=expire_time
        )

    def test_without_a_subscription_there_is_none(self) -> None:
        assert entitlement(None, NOW) == Entitlement(
            entitled=False, expire_time=self.latest, reason="NO_SUBSCRIPTION"
        )

    def test_an_unpaid_first_invoice_entitles_to_nothing(self) -> None:
        assert entitlement(NEW, NOW) == self.refused("INVOICE_UNPAID")

    @pytest.mark.parametrize("living", [ACTIVE, TRIALING], ids=["paid", "trial"])
    def test_paid_and_tried_entitle(self, living: Subscription) -> None:
        assert entitlement(living, NOW) == self.granted()

    def test_an_ended_one_entitles_to_nothing(self) -> None:
        ended = replace(NEW, state=State.CANCELED, cancel_time=NOW)
        assert entitlement(ended, NOW) == self.refused("SUBSCRIPTION_ENDED")

    def test_a_later_invoice_may_stay_unpaid_for_the_grace_even_if_no_biller_came(self) -> None:
        last = FIRST.end + GRACE
        second = timedelta(seconds=1)
        assert entitlement(ACTIVE, last - second) == self.granted(expire_time=last)
        assert entitlement(ACTIVE, last) == self.refused("SUBSCRIPTION_ENDED", last + ENTITLEMENT_TTL)

    def test_an_answer_is_never_kept_past_the_next_change(self) -> None:
        second = timedelta(seconds=1)
        assert entitlement(TRIALING, TRIAL_END - second) == self.granted(expire_time=TRIAL_END)
        after = entitlement(TRIALING, TRIAL_END)
        assert after == self.refused("INVOICE_UNPAID", TRIAL_END + ENTITLEMENT_TTL)
