from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from kino.billing.v1 import billing_pb2 as pb
from kino.billing.v1 import billing_pb2_grpc
from kino.billing.v1 import resources_pb2 as res
from kino.common.v1.money_pb2 import Money
from services.billing.bootstrap import build
from services.billing.usecases import Billing
from services.runtime.app import Running
from services.runtime.auth import OPERATOR, VIEWER
from services.runtime.clock import ManualClock
from services.runtime.status import error_of
from services.runtime.testing import bearer, channel_of, service_token, serving, user_token
from tests.support.billing import utc

Stub = billing_pb2_grpc.BillingServiceStub
START = utc("2025-01-31T10:00:00")
EUR = Money(currency_code="EUR", amount_minor=999)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def process(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Running]:
    async with serving(tmp_path, clock=clock, billing=build) as running:
        yield running


@pytest.fixture
async def stub(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process) as channel:
        yield Stub(channel)


class Callers:
    """Who calls: tokens are made anew, for the clock moves on."""

    def __init__(self, process: Running) -> None:
        self._process = process

    def user(self, name: str, *roles: str) -> Any:
        return bearer(user_token(self._process, f"users/{name}", *(roles or (VIEWER,))))

    @property
    def operator(self) -> Any:
        return self.user("op", OPERATOR)

    @property
    def playback(self) -> Any:
        return bearer(service_token(self._process, "playback"))


@pytest.fixture
def callers(process: Running) -> Callers:
    return Callers(process)


def request_id() -> str:
    return str(uuid.uuid4())


def films(**changes: Any) -> res.Plan:
    fields: dict[str, Any] = {
        "display_name": "Films",
        "price": EUR,
        "interval": res.Plan.INTERVAL_MONTH,
        "concurrent_stream_limit": 2,
    }
    return res.Plan(**{**fields, **changes})


async def make_plan(stub: Any, callers: Callers, **changes: Any) -> res.Plan:
    request = pb.CreatePlanRequest(plan=films(**changes), request_id=request_id())
    plan: res.Plan = (await stub.CreatePlan(request, metadata=callers.operator)).plan
    return plan


async def subscribe(stub: Any, callers: Callers, plan: res.Plan, user: str = "ann") -> Any:
    request = pb.CreateSubscriptionRequest(parent=f"users/{user}", plan=plan.name, request_id=request_id())
    return await stub.CreateSubscription(request, metadata=callers.user(user))


async def pay(stub: Any, callers: Callers, invoice: res.Invoice) -> Any:
    request = pb.RecordPaymentRequest(invoice=invoice.name, amount=invoice.total, request_id=request_id())
    return await stub.RecordPayment(request, metadata=callers.operator)


async def entitlement(stub: Any, callers: Callers, user: str = "ann") -> res.Entitlement:
    request = pb.CheckEntitlementRequest(user=f"users/{user}")
    answer: res.Entitlement = (await stub.CheckEntitlement(request, metadata=callers.playback)).entitlement
    return answer


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, error_of(caught.value).reason


class TestTheLifeOfASubscription:
    async def test_unpaid_it_entitles_to_nothing_and_paid_to_the_plan(
        self, stub: Any, callers: Callers
    ) -> None:
        plan = await make_plan(stub, callers)
        assert (await entitlement(stub, callers)).reason == "NO_SUBSCRIPTION"

        made = await subscribe(stub, callers, plan)
        assert made.subscription.state == res.Subscription.STATE_INCOMPLETE
        assert (made.invoice.number, made.invoice.state) == ("KINO-000001", res.Invoice.STATE_OPEN)
        assert made.invoice.lines[0].amount == made.invoice.total == EUR
        assert made.invoice.due_time.ToDatetime(tzinfo=START.tzinfo) == START
        assert (await entitlement(stub, callers)).reason == "INVOICE_UNPAID"

        paid = await pay(stub, callers, made.invoice)
        assert (paid.invoice.state, paid.subscription.state) == (
            res.Invoice.STATE_PAID,
            res.Subscription.STATE_ACTIVE,
        )
        answer = await entitlement(stub, callers)
        assert (answer.entitled, answer.concurrent_stream_limit, answer.subscription, answer.reason) == (
            True,
            2,
            made.subscription.name,
            "",
        )
        assert answer.expire_time.ToDatetime(tzinfo=START.tzinfo) == START + timedelta(seconds=60)

    async def test_the_anchors_day_comes_back_after_february(
        self, stub: Any, callers: Callers, clock: ManualClock
    ) -> None:
        plan = await make_plan(stub, callers, price=Money(currency_code="EUR", amount_minor=0))
        await subscribe(stub, callers, plan)
        clock.set(utc("2025-03-31T10:00:00"))
        request = pb.CancelSubscriptionRequest(
            name=(await self.mine(stub, callers)).name,
        )
        cancelled = (await stub.CancelSubscription(request, metadata=callers.user("ann"))).subscription
        ends = cancelled.current_period_end_time.ToDatetime(tzinfo=START.tzinfo)
        assert ends == utc("2025-04-30T10:00:00") == cancelled.cancel_time.ToDatetime(tzinfo=START.tzinfo)

    async def mine(self, stub: Any, callers: Callers) -> res.Subscription:
        request = pb.ListSubscriptionsRequest(parent="users/me")
        found: res.Subscription = (
            await stub.ListSubscriptions(request, metadata=callers.user("ann"))
        ).subscriptions[0]
        return found

    async def test_a_renewal_nobody_pays_ends_it_after_a_week(
        self, stub: Any, callers: Callers, clock: ManualClock
    ) -> None:
        made = await subscribe(stub, callers, await make_plan(stub, callers))
        await pay(stub, callers, made.invoice)
        clock.set(utc("2025-03-07T09:59:59"))
        assert (await entitlement(stub, callers)).entitled
        clock.set(utc("2025-03-07T10:00:00"))
        assert (await entitlement(stub, callers)).reason == "SUBSCRIPTION_ENDED"

    async def test_the_biller_comes_by_at_the_start(
        self, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with serving(tmp_path, clock=clock, billing=build) as process, channel_of(process) as channel:
            stub, callers = Stub(channel), Callers(process)
            made = await subscribe(stub, callers, await make_plan(stub, callers))
            await pay(stub, callers, made.invoice)
        clock.set(utc("2025-03-01T00:00:00"))
        rounds: asyncio.Queue[int] = asyncio.Queue()
        run_biller = Billing.run_biller

        async def told(self: Billing) -> int:
            done = await run_biller(self)
            rounds.put_nowait(done)
            return done

        monkeypatch.setattr(Billing, "run_biller", told)
        async with serving(tmp_path, clock=clock, billing=build) as process, channel_of(process) as channel:
            assert await rounds.get() == 1
            request = pb.ListInvoicesRequest(parent="users/ann")
            listed = await Stub(channel).ListInvoices(request, metadata=Callers(process).user("ann"))
        assert [(invoice.number, invoice.state) for invoice in listed.invoices] == [
            ("KINO-000002", res.Invoice.STATE_OPEN),
            ("KINO-000001", res.Invoice.STATE_PAID),
        ]

    async def test_errors_say_what_is_wrong(self, stub: Any, callers: Callers) -> None:
        plan = await make_plan(stub, callers)
        made = await subscribe(stub, callers, plan)
        assert await refused(subscribe(stub, callers, plan)) == ("ALREADY_EXISTS", "ALREADY_SUBSCRIBED")
        less = pb.RecordPaymentRequest(
            invoice=made.invoice.name,
            amount=Money(currency_code="EUR", amount_minor=1),
            request_id=request_id(),
        )
        assert await refused(stub.RecordPayment(less, metadata=callers.operator)) == (
            "FAILED_PRECONDITION",
            "AMOUNT_MISMATCH",
        )
        await pay(stub, callers, made.invoice)
        assert await refused(pay(stub, callers, made.invoice)) == ("FAILED_PRECONDITION", "INVOICE_NOT_OPEN")
        await stub.ArchivePlan(pb.ArchivePlanRequest(name=plan.name), metadata=callers.operator)
        assert await refused(subscribe(stub, callers, plan, "bob")) == (
            "FAILED_PRECONDITION",
            "PLAN_ARCHIVED",
        )


class TestRepetition:
    async def test_every_create_and_payment_answers_twice_alike_and_acts_once(
        self, stub: Any, callers: Callers, clock: ManualClock
    ) -> None:
        plan = pb.CreatePlanRequest(plan=films(), request_id=request_id())
        first = await stub.CreatePlan(plan, metadata=callers.operator)
        create = pb.CreateSubscriptionRequest(
            parent="users/ann", plan=first.plan.name, request_id=request_id()
        )
        made = await stub.CreateSubscription(create, metadata=callers.user("ann"))
        payment = pb.RecordPaymentRequest(invoice=made.invoice.name, amount=EUR, request_id=request_id())
        paid = await stub.RecordPayment(payment, metadata=callers.operator)
        clock.advance(timedelta(days=100))
        assert await stub.CreatePlan(plan, metadata=callers.operator) == first
        assert await stub.CreateSubscription(create, metadata=callers.user("ann")) == made
        assert await stub.RecordPayment(payment, metadata=callers.operator) == paid
        assert len((await stub.ListPlans(pb.ListPlansRequest())).plans) == 1

    async def test_an_id_used_for_something_else_is_refused(self, stub: Any, callers: Callers) -> None:
        request = pb.CreatePlanRequest(plan=films(), request_id=request_id())
        await stub.CreatePlan(request, metadata=callers.operator)
        request.plan.price.amount_minor += 1
        assert await refused(stub.CreatePlan(request, metadata=callers.operator)) == (
            "ALREADY_EXISTS",
            "REQUEST_ID_REUSED",
        )

    async def test_another_users_request_id_is_no_key_to_the_answer(
        self, stub: Any, callers: Callers
    ) -> None:
        plan = await make_plan(stub, callers)
        create = pb.CreateSubscriptionRequest(parent="users/ann", plan=plan.name, request_id=request_id())
        await stub.CreateSubscription(create, metadata=callers.user("ann"))
        create.parent = "users/bob"
        made = await stub.CreateSubscription(create, metadata=callers.user("bob"))
        assert made.subscription.name.startswith("users/bob/")


class TestAccess:
    async def test_what_is_anns_is_closed_to_bob_and_open_to_the_operator_and_services(
        self, stub: Any, callers: Callers
    ) -> None:
        made = await subscribe(stub, callers, await make_plan(stub, callers))
        calls = [
            (stub.GetInvoice, pb.GetInvoiceRequest(name=made.invoice.name)),
            (stub.GetInvoice, pb.GetInvoiceRequest(name="users/ann/invoices/unknown")),
            (stub.ListInvoices, pb.ListInvoicesRequest(parent="users/ann")),
            (stub.ListSubscriptions, pb.ListSubscriptionsRequest(parent="users/ann")),
            (stub.CheckEntitlement, pb.CheckEntitlementRequest(user="users/ann")),
            (stub.CancelSubscription, pb.CancelSubscriptionRequest(name=made.subscription.name)),
            (
                stub.CreateSubscription,
                pb.CreateSubscriptionRequest(
                    parent="users/ann", plan="plans/unknown", request_id=request_id()
                ),
            ),
        ]
        for method, request in calls:
            assert await refused(method(request)) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            denied = await refused(method(request, metadata=callers.user("bob")))
            assert denied == ("PERMISSION_DENIED", "NOT_OWNER")
        for caller in (callers.user("ann"), callers.operator, callers.playback):
            for method, request in calls[:1] + calls[2:-1]:
                assert await method(request, metadata=caller)

    async def test_an_invoice_is_not_found_under_another_users_name(
        self, stub: Any, callers: Callers
    ) -> None:
        made = await subscribe(stub, callers, await make_plan(stub, callers))
        moved = made.invoice.name.replace("users/ann", "users/bob")
        request = pb.GetInvoiceRequest(name=moved)
        assert await refused(stub.GetInvoice(request, metadata=callers.user("bob"))) == (
            "NOT_FOUND",
            "NOT_FOUND",
        )

    async def test_money_and_plans_are_the_operators(self, stub: Any, callers: Callers) -> None:
        made = await subscribe(stub, callers, await make_plan(stub, callers))
        payment = pb.RecordPaymentRequest(invoice=made.invoice.name, amount=EUR, request_id=request_id())
        calls = [
            (stub.CreatePlan, pb.CreatePlanRequest(plan=films(), request_id=request_id())),
            (stub.ArchivePlan, pb.ArchivePlanRequest(name="plans/unknown")),
            (stub.RecordPayment, payment),
            (stub.ListLedgerEntries, pb.ListLedgerEntriesRequest()),
        ]
        for method, request in calls:
            assert await refused(method(request)) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            for roles in (["viewer"], ["publisher"]):
                denied = await refused(method(request, metadata=callers.user("ann", *roles)))
                assert denied == ("PERMISSION_DENIED", "ROLE_MISSING")

    async def test_plans_are_shown_to_everybody(self, stub: Any, callers: Callers) -> None:
        plan = await make_plan(stub, callers)
        assert (await stub.GetPlan(pb.GetPlanRequest(name=plan.name))).plan == plan
        assert list((await stub.ListPlans(pb.ListPlansRequest())).plans) == [plan]

    async def test_users_me_is_the_caller(self, stub: Any, callers: Callers) -> None:
        plan = await make_plan(stub, callers)
        request = pb.CreateSubscriptionRequest(parent="users/me", plan=plan.name, request_id=request_id())
        made = await stub.CreateSubscription(request, metadata=callers.user("ann"))
        assert made.subscription.name.startswith("users/ann/subscriptions/")


class TestRequests:
    @pytest.mark.parametrize(
        "change",
        [
            {"display_name": ""},
            {"display_name": "x" * 101},
            {"display_name": "line\nbreak"},
            {"interval": res.Plan.INTERVAL_UNSPECIFIED},
            {"interval": 7},
            {"trial_period_days": -1},
            {"trial_period_days": 366},
            {"concurrent_stream_limit": 0},
            {"concurrent_stream_limit": 101},
            {"price": Money(currency_code="eur", amount_minor=1)},
            {"price": Money(currency_code="XXX", amount_minor=1)},
            {"price": Money(currency_code="EUR", amount_minor=-1)},
            {"price": Money(currency_code="EUR", amount_minor=2**63 - 1)},
            {"price": None},
        ],
    )
    async def test_a_plan_against_the_rules_is_refused(
        self, stub: Any, callers: Callers, change: dict[str, Any]
    ) -> None:
        request = pb.CreatePlanRequest(plan=films(**change), request_id=request_id())
        code, _ = await refused(stub.CreatePlan(request, metadata=callers.operator))
        assert code == "INVALID_ARGUMENT"
        assert list((await stub.ListPlans(pb.ListPlansRequest())).plans) == []

    async def test_lists_are_walked_page_by_page(
        self, stub: Any, callers: Callers, clock: ManualClock
    ) -> None:
        plan = await make_plan(stub, callers)
        for _ in range(5):
            made = await subscribe(stub, callers, plan)
            await stub.CancelSubscription(
                pb.CancelSubscriptionRequest(name=made.subscription.name), metadata=callers.user("ann")
            )
            clock.advance(60)
        for minor in (3, 1, 2):
            await make_plan(stub, callers, price=Money(currency_code="EUR", amount_minor=minor))
        invoices = await self.walk(stub.ListInvoices, pb.ListInvoicesRequest(parent="users/ann"), callers)
        assert [invoice.number for invoice in invoices] == [f"KINO-00000{n}" for n in (5, 4, 3, 2, 1)]
        request = pb.ListSubscriptionsRequest(parent="users/ann")
        subscriptions = await self.walk(stub.ListSubscriptions, request, callers)
        assert [s.name for s in subscriptions] == [invoice.subscription for invoice in invoices]
        entries = await self.walk(stub.ListLedgerEntries, pb.ListLedgerEntriesRequest(), callers)
        assert [entry.sequence for entry in entries] == list(range(1, 11))
        plans = await self.walk(stub.ListPlans, pb.ListPlansRequest(), callers)
        assert [plan.price.amount_minor for plan in plans] == [1, 2, 3, 999]

    async def walk(self, method: Any, request: Any, callers: Callers) -> list[Any]:
        request.page_size = 2
        found: list[Any] = []
        while True:
            page = await method(request, metadata=callers.operator)
            items = next(value for field, value in page.ListFields() if field.is_repeated)
            assert len(items) <= 2
            found += items
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def test_a_page_token_of_another_user_is_refused(self, stub: Any, callers: Callers) -> None:
        plan = await make_plan(stub, callers)
        for _ in range(2):
            made = await subscribe(stub, callers, plan)
            cancel = pb.CancelSubscriptionRequest(name=made.subscription.name)
            await stub.CancelSubscription(cancel, metadata=callers.user("ann"))
        anns = pb.ListInvoicesRequest(parent="users/ann", page_size=1)
        token = (await stub.ListInvoices(anns, metadata=callers.user("ann"))).next_page_token
        bobs = pb.ListInvoicesRequest(parent="users/bob", page_size=1, page_token=token)
        code, _ = await refused(stub.ListInvoices(bobs, metadata=callers.user("bob")))
        assert code == "INVALID_ARGUMENT"
