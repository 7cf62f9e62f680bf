"""`kino billing`: plans, subscriptions, invoices, payments."""

from __future__ import annotations

import uuid
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from cli.client import Kino, connect
from cli.main import State, run
from cli.output import as_dict, minor_digits, money
from kino.billing.v1 import billing_pb2, billing_pb2_grpc, resources_pb2
from kino.common.v1 import money_pb2

_INTERVALS = {"month": resources_pb2.Plan.INTERVAL_MONTH, "year": resources_pb2.Plan.INTERVAL_YEAR}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    billing = typer.Typer(no_args_is_help=True, help="Plans, subscriptions and invoices.")
    billing.command("plans")(list_plans)
    billing.command("create-plan")(create_plan)
    billing.command("subscribe")(subscribe)
    billing.command("subscriptions")(list_subscriptions)
    billing.command("cancel")(cancel)
    billing.command("invoices")(list_invoices)
    billing.command("pay")(record_payment)
    billing.command("ledger")(ledger)
    app.add_typer(billing, name="billing")


def list_plans(context: typer.Context) -> None:
    """List the plans that can be subscribed to."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            page = await _stub(kino).ListPlans(billing_pb2.ListPlansRequest(page_size=200))
            rows = [
                (plan.name, plan.display_name, _price(plan), plan.concurrent_stream_limit)
                for plan in page.plans
            ]
            state.output.messages(page.plans, ("plan", "name", "price", "streams"), rows)

    run(work)


def create_plan(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Name to show.")],
    price: Annotated[str, typer.Option(help="Price of a period, for example 9.99; 0 for free.")],
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = "EUR",
    interval: Annotated[str, typer.Option(help="month or year.")] = "month",
    trial_days: Annotated[int, typer.Option(help="Days of free use before the first invoice.")] = 0,
    streams: Annotated[int, typer.Option(help="Streams at the same time.")] = 2,
) -> None:
    """Create a plan (operators).

    \b
    kino billing create-plan --name Standard --price 9.99 --streams 3
    """
    state: State = context.obj
    if interval not in _INTERVALS:
        raise typer.BadParameter(f"{interval} is no interval; there are: {', '.join(_INTERVALS)}.")
    plan = resources_pb2.Plan(
        display_name=name,
        price=money_pb2.Money(currency_code=currency, amount_minor=_minor(price, currency)),
        interval=_INTERVALS[interval],
        trial_period_days=trial_days,
        concurrent_stream_limit=streams,
    )

    async def work() -> None:
        async with connect(state.url) as kino:
            request = billing_pb2.CreatePlanRequest(plan=plan, request_id=str(uuid.uuid4()))
            answer = await _stub(kino).CreatePlan(request)
            state.output.facts({"plan": answer.plan.name, "price": _price(answer.plan)})

    run(work)


def subscribe(context: typer.Context, plan: Annotated[str, typer.Argument(help="`plans/…`")]) -> None:
    """Subscribe to a plan."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = billing_pb2.CreateSubscriptionRequest(
                parent=kino.user, plan=plan, request_id=str(uuid.uuid4())
            )
            answer = await _stub(kino).CreateSubscription(request)
            facts: dict[str, object] = {
                "subscription": answer.subscription.name,
                "state": _state(answer.subscription),
            }
            if answer.HasField("invoice"):
                facts |= {"invoice": answer.invoice.name, "to_pay": _total(answer.invoice)}
            state.output.facts(facts)

    run(work)


def list_subscriptions(context: typer.Context) -> None:
    """List your subscriptions."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = billing_pb2.ListSubscriptionsRequest(parent=kino.user, page_size=200)
            page = await _stub(kino).ListSubscriptions(request)
            rows = [(item.name, item.plan, _state(item)) for item in page.subscriptions]
            state.output.messages(page.subscriptions, ("subscription", "plan", "state"), rows)

    run(work)


def cancel(
    context: typer.Context, subscription: Annotated[str, typer.Argument(help="`users/…/subscriptions/…`")]
) -> None:
    """Cancel a subscription at the end of what is paid."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = billing_pb2.CancelSubscriptionRequest(name=subscription)
            answer = await _stub(kino).CancelSubscription(request)
            state.output.facts(as_dict(answer.subscription))

    run(work)


def list_invoices(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="`users/…`, for operators; default: you.")] = "",
) -> None:
    """List invoices, newest first."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = billing_pb2.ListInvoicesRequest(parent=user or kino.user, page_size=200)
            page = await _stub(kino).ListInvoices(request)
            states = resources_pb2.Invoice.State
            rows = [
                (
                    invoice.number,
                    _total(invoice),
                    states.Name(invoice.state).removeprefix("STATE_").lower(),
                    invoice.due_time.ToJsonString()[:10],
                    invoice.name,
                )
                for invoice in page.invoices
            ]
            state.output.messages(page.invoices, ("number", "total", "state", "due", "invoice"), rows)

    run(work)


def record_payment(
    context: typer.Context,
    invoice: Annotated[str, typer.Argument(help="`users/…/invoices/…`")],
    reference: Annotated[str, typer.Option(help="The bank's or payer's reference.")] = "",
) -> None:
    """Record that an invoice was paid in full (operators)."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            open_invoice = (await _stub(kino).GetInvoice(billing_pb2.GetInvoiceRequest(name=invoice))).invoice
            request = billing_pb2.RecordPaymentRequest(
                invoice=invoice, amount=open_invoice.total, reference=reference, request_id=str(uuid.uuid4())
            )
            answer = await _stub(kino).RecordPayment(request)
            state.output.facts(
                {
                    "invoice": answer.invoice.number,
                    "paid": _total(answer.invoice),
                    "plan": _state(answer.subscription),
                }
            )

    run(work)


def ledger(context: typer.Context) -> None:
    """List the postings of the ledger (operators)."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            entries: list[resources_pb2.LedgerEntry] = []
            token = ""
            while True:
                request = billing_pb2.ListLedgerEntriesRequest(page_size=1000, page_token=token)
                page = await _stub(kino).ListLedgerEntries(request)
                entries += page.entries
                token = page.next_page_token
                if not token:
                    break
            rows = [
                (
                    entry.sequence,
                    entry.debit_account,
                    entry.credit_account,
                    money(entry.amount.amount_minor, entry.amount.currency_code),
                    entry.cause,
                )
                for entry in entries
            ]
            state.output.messages(entries, ("no", "debit", "credit", "amount", "cause"), rows)

    run(work)


def _minor(price: str, currency: str) -> int:
    digits = minor_digits(currency)
    try:
        amount = Decimal(price).scaleb(digits)
    except InvalidOperation:
        raise typer.BadParameter(f"{price} is no amount; write for example 9.99.") from None
    if amount != amount.to_integral_value():
        raise typer.BadParameter(f"{currency} has {digits} decimals.")
    return int(amount)


def _stub(kino: Kino) -> billing_pb2_grpc.BillingServiceStub:
    return kino.stub(billing_pb2_grpc.BillingServiceStub)


def _price(plan: resources_pb2.Plan) -> str:
    interval = resources_pb2.Plan.Interval.Name(plan.interval).removeprefix("INTERVAL_").lower()
    return f"{money(plan.price.amount_minor, plan.price.currency_code)} a {interval}"


def _total(invoice: resources_pb2.Invoice) -> str:
    return money(invoice.total.amount_minor, invoice.total.currency_code)


def _state(subscription: resources_pb2.Subscription) -> str:
    return resources_pb2.Subscription.State.Name(subscription.state).removeprefix("STATE_").lower()
