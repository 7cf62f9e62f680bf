"""What billing needs of a store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

from services.billing.model import Invoice, InvoiceState, Period, Plan, Posting, Subscription
from services.billing.money import Money

T = TypeVar("T")


class Transaction(Protocol):
    """Reads and changes that happen together or not at all, as if no other transaction ran meanwhile."""

    def once(
        self, scope: str, request_id: str, request: bytes, now: datetime, run: Callable[[], bytes]
    ) -> bytes:
        """What `run` returned at the first call with this scope and id; kept for ever.

        Raises `AlreadyExists` when that call had another `request`.
        """

    def plan(self, plan_id: str) -> Plan | None:
        """A plan, archived or not."""

    def plans_after(self, cursor: tuple[str, int, str] | None, limit: int) -> list[Plan]:
        """Plans that aren't archived by (currency, price, id), after that one."""

    def add_plan(self, plan: Plan) -> None:
        """A plan's price and limits can't be changed later."""

    def archive_plan(self, plan_id: str) -> None:
        """Succeeds when it is archived."""

    def subscription(self, subscription_id: str) -> Subscription | None:
        """A subscription with its plan."""

    def latest_subscription(self, user_id: str) -> Subscription | None:
        """A user's newest one; the only one that can be alive."""

    def subscriptions_before(self, user_id: str, before_id: str, limit: int) -> list[Subscription]:
        """A user's, newest first, older than that one; from the newest when `before_id` is empty."""

    def had_trial(self, user_id: str, plan_id: str) -> bool:
        """Whether the user had a trial of the plan."""

    def first_due(self, now: datetime) -> Subscription | None:
        """The subscription whose next step is due first, if it is by `now`; ties by id."""

    def add_subscription(self, subscription: Subscription) -> None:
        """The store refuses a second living one of a user, and a second trial of a plan."""

    def update_subscription(self, subscription: Subscription) -> None:
        """Replace state, period and end."""

    def invoice(self, invoice_id: str) -> Invoice | None:
        """An invoice."""

    def invoice_of_period(self, subscription_id: str, start: datetime) -> Invoice | None:
        """The invoice for the period of a subscription that starts then."""

    def invoices_before(self, user_id: str, before_serial: int | None, limit: int) -> list[Invoice]:
        """A user's, newest first, with a serial below that."""

    def add_invoice(
        self, invoice_id: str, subscription: Subscription, description: str, period: Period, time: datetime
    ) -> Invoice:
        """Make the open invoice of a period with the next serial; a period is billed once."""

    def set_invoice_state(self, invoice_id: str, state: InvoiceState, paid_time: datetime | None) -> None:
        """The only change an invoice allows, and only while it is open."""

    def post(self, debit: str, credit: str, amount: Money, cause: str, time: datetime) -> Posting:
        """Add a row to the ledger with the next sequence number; rows are never changed."""

    def postings_after(self, sequence: int, limit: int) -> list[Posting]:
        """The ledger in order, after that row."""


class Store(Protocol):
    """Where billing's state lives; what `write` returned survives a crash."""

    async def write(self, run: Callable[[Transaction], T]) -> T:
        """Run in one transaction; an exception undoes it. `run` may run again."""

    async def read(self, run: Callable[[Transaction], T]) -> T:
        """Run against one snapshot of committed state; the changing methods fail."""
