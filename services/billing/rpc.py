"""`kino.billing.v1.BillingService`: Protobuf to use cases and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from kino.billing.v1 import billing_pb2 as pb
from kino.billing.v1 import billing_pb2_grpc
from kino.billing.v1 import resources_pb2 as res
from kino.common.v1 import money_pb2
from services.billing.model import (
    Entitlement,
    Interval,
    Invoice,
    InvoiceState,
    Plan,
    Posting,
    State,
    Subscription,
)
from services.billing.money import Money
from services.billing.usecases import Billing, Once, PlanDraft
from services.runtime import names
from services.runtime.auth import own_name, principal, require_user
from services.runtime.paging import Pager, page_size
from services.runtime.wire import timestamp, timestamp_or_none

T = TypeVar("T")

_PLAN = "plans/{plan}"
_USER = "users/{user}"
_SUBSCRIPTION = "users/{user}/subscriptions/{subscription}"
_INVOICE = "users/{user}/invoices/{invoice}"

_INTERVALS = {
    res.Plan.INTERVAL_MONTH: Interval.MONTH,
    res.Plan.INTERVAL_YEAR: Interval.YEAR,
}
_INTERVALS_BACK = {interval: number for number, interval in _INTERVALS.items()}
_STATES = {
    State.TRIALING: res.Subscription.STATE_TRIALING,
    State.INCOMPLETE: res.Subscription.STATE_INCOMPLETE,
    State.ACTIVE: res.Subscription.STATE_ACTIVE,
    State.PAST_DUE: res.Subscription.STATE_PAST_DUE,
    State.CANCELED: res.Subscription.STATE_CANCELED,
}
_INVOICE_STATES = {
    InvoiceState.OPEN: res.Invoice.STATE_OPEN,
    InvoiceState.PAID: res.Invoice.STATE_PAID,
    InvoiceState.VOID: res.Invoice.STATE_VOID,
}


class BillingServicer(billing_pb2_grpc.BillingServiceServicer):
    """What each method does, and who may call it, is documented in the contract."""

    def __init__(self, billing: Billing, pager: Pager) -> None:
        """`pager` makes the page tokens."""
        self._billing, self._pager = billing, pager

    async def CreatePlan(self, request: pb.CreatePlanRequest, context: Any) -> pb.CreatePlanResponse:
        plan = request.plan
        draft = PlanDraft(
            display_name=plan.display_name,
            price=_money_of(plan.price),
            interval=_INTERVALS[plan.interval],
            trial_period_days=plan.trial_period_days,
            concurrent_stream_limit=plan.concurrent_stream_limit,
        )

        def encode(made: Plan) -> pb.CreatePlanResponse:
            return pb.CreatePlanResponse(plan=_plan(made))

        answer = await self._billing.create_plan(draft, _once(request, encode))
        return pb.CreatePlanResponse.FromString(answer)

    async def GetPlan(self, request: pb.GetPlanRequest, context: Any) -> pb.GetPlanResponse:
        plan_id = names.parse(_PLAN, request.name)["plan"]
        return pb.GetPlanResponse(plan=_plan(await self._billing.get_plan(plan_id)))

    async def ListPlans(self, request: pb.ListPlansRequest, context: Any) -> pb.ListPlansResponse:
        size = page_size(request.page_size)
        cursor = self._pager.cursor("ListPlans", request.page_token)
        after = (str(cursor[0]), int(cursor[1] or 0), str(cursor[2])) if cursor else None
        found = await self._billing.list_plans(after, size + 1)
        page, token = self._page(
            "ListPlans",
            found,
            size,
            lambda plan: [plan.price.currency_code, plan.price.amount_minor, plan.id],
        )
        return pb.ListPlansResponse(plans=[_plan(plan) for plan in page], next_page_token=token)

    async def ArchivePlan(self, request: pb.ArchivePlanRequest, context: Any) -> pb.ArchivePlanResponse:
        plan_id = names.parse(_PLAN, request.name)["plan"]
        return pb.ArchivePlanResponse(plan=_plan(await self._billing.archive_plan(plan_id)))

    async def CreateSubscription(
        self, request: pb.CreateSubscriptionRequest, context: Any
    ) -> pb.CreateSubscriptionResponse:
        user_id = _ids(_USER, request.parent, "parent")["user"]
        plan_id = names.parse(_PLAN, request.plan, "plan")["plan"]

        def encode(made: tuple[Subscription, Invoice | None]) -> pb.CreateSubscriptionResponse:
            subscription, invoice = made
            first = _invoice(invoice) if invoice else None
            return pb.CreateSubscriptionResponse(subscription=_subscription(subscription), invoice=first)

        answer = await self._billing.create_subscription(user_id, plan_id, _once(request, encode))
        return pb.CreateSubscriptionResponse.FromString(answer)

    async def ListSubscriptions(
        self, request: pb.ListSubscriptionsRequest, context: Any
    ) -> pb.ListSubscriptionsResponse:
        user_id = _ids(_USER, request.parent, "parent")["user"]
        size, query = page_size(request.page_size), f"ListSubscriptions {user_id}"
        cursor = self._pager.cursor(query, request.page_token)
        before = str(cursor[0]) if cursor else ""
        found = await self._billing.list_subscriptions(user_id, before, size + 1)
        page, token = self._page(query, found, size, lambda subscription: [subscription.id])
        return pb.ListSubscriptionsResponse(
            subscriptions=[_subscription(subscription) for subscription in page], next_page_token=token
        )

    async def CancelSubscription(
        self, request: pb.CancelSubscriptionRequest, context: Any
    ) -> pb.CancelSubscriptionResponse:
        ids = _ids(_SUBSCRIPTION, request.name)
        canceled = await self._billing.cancel_subscription(ids["user"], ids["subscription"])
        return pb.CancelSubscriptionResponse(subscription=_subscription(canceled))

    async def GetInvoice(self, request: pb.GetInvoiceRequest, context: Any) -> pb.GetInvoiceResponse:
        ids = _ids(_INVOICE, request.name)
        return pb.GetInvoiceResponse(
            invoice=_invoice(await self._billing.get_invoice(ids["user"], ids["invoice"]))
        )

    async def ListInvoices(self, request: pb.ListInvoicesRequest, context: Any) -> pb.ListInvoicesResponse:
        user_id = _ids(_USER, request.parent, "parent")["user"]
        size, query = page_size(request.page_size), f"ListInvoices {user_id}"
        cursor = self._pager.cursor(query, request.page_token)
        before = int(cursor[0] or 0) if cursor else None
        found = await self._billing.list_invoices(user_id, before, size + 1)
        page, token = self._page(query, found, size, lambda invoice: [invoice.serial])
        return pb.ListInvoicesResponse(
            invoices=[_invoice(invoice) for invoice in page], next_page_token=token
        )

    async def RecordPayment(self, request: pb.RecordPaymentRequest, context: Any) -> pb.RecordPaymentResponse:
        ids = _ids(_INVOICE, request.invoice, "invoice")

        def encode(paid: tuple[Invoice, Subscription]) -> pb.RecordPaymentResponse:
            return pb.RecordPaymentResponse(invoice=_invoice(paid[0]), subscription=_subscription(paid[1]))

        answer = await self._billing.record_payment(
            ids["user"], ids["invoice"], _money_of(request.amount), request.reference, _once(request, encode)
        )
        return pb.RecordPaymentResponse.FromString(answer)

    async def ListLedgerEntries(
        self, request: pb.ListLedgerEntriesRequest, context: Any
    ) -> pb.ListLedgerEntriesResponse:
        size = page_size(request.page_size, default=100, maximum=1000)
        cursor = self._pager.cursor("ListLedgerEntries", request.page_token)
        after = int(cursor[0] or 0) if cursor else 0
        found = await self._billing.list_ledger_entries(after, size + 1)
        page, token = self._page("ListLedgerEntries", found, size, lambda posting: [posting.sequence])
        return pb.ListLedgerEntriesResponse(
            entries=[_posting(posting) for posting in page], next_page_token=token
        )

    async def CheckEntitlement(
        self, request: pb.CheckEntitlementRequest, context: Any
    ) -> pb.CheckEntitlementResponse:
        user_id = _ids(_USER, request.user, "user")["user"]
        answer = await self._billing.check_entitlement(user_id)
        return pb.CheckEntitlementResponse(entitlement=_entitlement(answer))

    def _page(
        self, query: str, found: list[T], size: int, cursor: Callable[[T], list[str | int | float | None]]
    ) -> tuple[list[T], str]:
        """The page, and the token of the next one if more was found than fits."""
        page = found[:size]
        return page, self._pager.token(query, cursor(page[-1])) if len(found) > size else ""


def _ids(pattern: str, name: str, field: str = "name") -> dict[str, str]:
    """The ids in a name below a user, which the caller must be allowed to use; `users/me` is the caller."""
    name = own_name(name)
    require_user(name)
    return names.parse(pattern, name, field)


def _once(request: Any, encode: Callable[[T], Message]) -> Once[T]:
    """What makes the request take effect once."""
    rest = type(request)()
    rest.CopyFrom(request)
    rest.ClearField("request_id")
    return Once(
        caller=principal().subject,
        request_id=request.request_id,
        request=rest.SerializeToString(deterministic=True),
        encode=lambda answer: encode(answer).SerializeToString(),
    )


def _money_of(money: money_pb2.Money) -> Money:
    return Money(currency_code=money.currency_code, amount_minor=money.amount_minor)


def _money(money: Money) -> money_pb2.Money:
    return money_pb2.Money(currency_code=money.currency_code, amount_minor=money.amount_minor)


def _plan(plan: Plan) -> res.Plan:
    return res.Plan(
        name=plan.name,
        display_name=plan.display_name,
        price=_money(plan.price),
        interval=_INTERVALS_BACK[plan.interval],
        trial_period_days=plan.trial_period_days,
        concurrent_stream_limit=plan.concurrent_stream_limit,
        archived=plan.archived,
        create_time=timestamp(plan.create_time),
    )


def _subscription(subscription: Subscription) -> res.Subscription:
    return res.Subscription(
        name=subscription.name,
        plan=subscription.plan.name,
        state=_STATES[subscription.state],
        anchor_time=timestamp(subscription.anchor_time),
        current_period_start_time=timestamp(subscription.period.start),
        current_period_end_time=timestamp(subscription.period.end),
        trial_end_time=timestamp_or_none(subscription.trial_end_time),
        cancel_time=timestamp_or_none(subscription.cancel_time),
        create_time=timestamp(subscription.create_time),
    )


def _invoice(invoice: Invoice) -> res.Invoice:
    line = res.InvoiceLine(
        description=invoice.description,
        period_start_time=timestamp(invoice.period.start),
        period_end_time=timestamp(invoice.period.end),
        amount=_money(invoice.total),
    )
    return res.Invoice(
        name=invoice.name,
        number=invoice.number,
        subscription=f"users/{invoice.user_id}/subscriptions/{invoice.subscription_id}",
        state=_INVOICE_STATES[invoice.state],
        lines=[line],
        total=_money(invoice.total),
        create_time=timestamp(invoice.create_time),
        due_time=timestamp(invoice.due_time),
        paid_time=timestamp_or_none(invoice.paid_time),
    )


def _posting(posting: Posting) -> res.LedgerEntry:
    return res.LedgerEntry(
        sequence=posting.sequence,
        debit_account=posting.debit_account,
        credit_account=posting.credit_account,
        amount=_money(posting.amount),
        cause=posting.cause,
        create_time=timestamp(posting.create_time),
    )


def _entitlement(answer: Entitlement) -> res.Entitlement:
    return res.Entitlement(
        entitled=answer.entitled,
        concurrent_stream_limit=answer.concurrent_stream_limit,
        subscription=answer.subscription,
        expire_time=timestamp(answer.expire_time),
        reason=answer.reason,
    )
