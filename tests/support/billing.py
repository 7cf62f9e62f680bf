"""What billing's tests share."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.billing.model import Interval, Invoice, Plan, Posting, Subscription
from services.billing.money import Money
from services.billing.store_sql import SqlStore
from services.billing.usecases import Billing, Once, PlanDraft
from services.runtime.clock import ManualClock
from services.runtime.ids import new_id
from services.runtime.sql import Database

PRICE = Money(currency_code="EUR", amount_minor=999)
DRAFT = PlanDraft(
    display_name="Films", price=PRICE, interval=Interval.MONTH, trial_period_days=0, concurrent_stream_limit=2
)
FREE = Money(currency_code="EUR", amount_minor=0)


class Desk:
    """Uses billing as the wire does: with request ids, and answers that come back as they were stored."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        """`database` is migrated."""
        self.clock = clock
        self.store = SqlStore(database)
        self.billing = Billing(store=self.store, clock=clock)
        self._answers: dict[bytes, Any] = {}
        self._number = itertools.count()

    def once(self, request_id: str = "", caller: str = "users/op", request: object = None) -> Once[Any]:
        """A request with that id, or with one of its own."""
        return Once(
            caller=caller,
            request_id=request_id or new_id(),
            request=json.dumps(request).encode(),
            encode=self._encode,
        )

    async def plan(self, **changes: Any) -> Plan:
        """A new plan."""
        plan: Plan = self._answers[await self.billing.create_plan(replace(DRAFT, **changes), self.once())]
        return plan

    async def subscribe(
        self, user: str, plan: Plan, request_id: str = ""
    ) -> tuple[Subscription, Invoice | None]:
        """What the first call with this id answered."""
        once = self.once(request_id, f"users/{user}", plan.id)
        made: tuple[Subscription, Invoice | None]
        made = self._answers[await self.billing.create_subscription(user, plan.id, once)]
        return made

    async def pay(
        self, invoice: Invoice, amount: Money | None = None, request_id: str = "", reference: str = ""
    ) -> tuple[Invoice, Subscription]:
        """What the first call with this id answered."""
        once = self.once(request_id, request=invoice.id)
        user, amount = invoice.user_id, amount or invoice.total
        paid: tuple[Invoice, Subscription]
        paid = self._answers[await self.billing.record_payment(user, invoice.id, amount, reference, once)]
        return paid

    async def subscription(self, user: str) -> Subscription:
        """The user's newest."""
        return (await self.billing.list_subscriptions(user, "", 1))[0]

    async def invoices(self, user: str) -> list[Invoice]:
        """Oldest first."""
        return (await self.billing.list_invoices(user, None, 10_000))[::-1]

    async def ledger(self) -> list[Posting]:
        """All of it."""
        return await self.billing.list_ledger_entries(0, 100_000)

    def _encode(self, answer: Any) -> bytes:
        key = str(next(self._number)).encode()
        self._answers[key] = answer
        return key


def balances(postings: list[Posting], key: Callable[[str], str] = lambda account: account) -> dict[str, int]:
    """Debits minus credits of each account that isn't even; `key` groups accounts."""
    found: dict[str, int] = {}
    for posting in postings:
        for account, sign in ((posting.debit_account, 1), (posting.credit_account, -1)):
            name = f"{key(account)} {posting.amount.currency_code}"
            found[name] = found.get(name, 0) + sign * posting.amount.amount_minor
    return {account: balance for account, balance in found.items() if balance}


def utc(text: str) -> datetime:
    """A time from ISO 8601 without a zone."""
    return datetime.fromisoformat(text + "+00:00")
