"""Money and accounts on a primary with two synchronous standbys that go down under them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeVar

import pytest
from sqlalchemy import text

from services.billing.model import InvoiceState, Plan
from services.identity import store_sql as identity_sql
from services.identity.model import Account, Role, User
from services.identity.store import Transaction
from services.runtime import sql_postgres
from services.runtime.clock import ManualClock
from services.runtime.errors import OutcomeUnknown
from services.runtime.ids import new_id
from services.runtime.sql import Database, DatabaseUnavailable, NoSynchronousStandby
from tests.engines.postgres import PostgresCluster
from tests.engines.process import wait_until
from tests.support.billing import Desk

pytestmark = pytest.mark.engine

T = TypeVar("T")
NOW = datetime(2026, 1, 31, tzinfo=UTC)
WITHIN_S = 90


@dataclass
class Office:
    """Billing and identity on the cluster, used through their own stores."""

    cluster: PostgresCluster
    billing: Database
    identity: Database
    desk: Desk
    accounts: identity_sql.SqlStore
    #: What writers were told instead of an answer.
    told: list[type[Exception]] = field(default_factory=list)
    #: Users whose every write was acknowledged.
    served: list[str] = field(default_factory=list)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat the same request until it is answered, as a client does."""
        while True:
            try:
                return await call()
            except (DatabaseUnavailable, OutcomeUnknown) as error:
                self.told.append(type(error))
                await asyncio.sleep(0.05)

    async def serve(self, user: str, plan: Plan) -> None:
        """Sign up, subscribe and pay, each with a request id of its own."""
        await self.insist(lambda: self.sign_up(user))
        _, invoice = await self.insist(lambda: self.desk.subscribe(user, plan, f"subscribe-{user}"))
        assert invoice is not None
        await self.insist(lambda: self.desk.pay(invoice, request_id=f"pay-{user}"))
        self.served.append(user)

    async def sign_up(self, user: str) -> bytes:
        """What the first call for that user answered."""
        made = User(
            id=new_id(), email=f"{user}@example.org", display_name=user, role=Role.VIEWER, create_time=NOW
        )

        def run(tx: Transaction) -> bytes:
            def create() -> bytes:
                tx.add_account(Account(user=made, password_hash="-"))
                return made.id.encode()

            return tx.once("SignUp", f"join-{user}", user.encode(), NOW, create)

        return await self.accounts.write(run)

    async def expect_one_effect_each(self, users: list[str]) -> None:
        """Every user has one account, one subscription and one invoice, paid once."""
        found = await self.accounts.read(lambda tx: tx.users_after(None, "", 10_000))
        assert sorted(account.display_name for account in found) == sorted(users)
        for user in users:
            assert len(await self.desk.billing.list_subscriptions(user, "", 10)) == 1
            assert [invoice.state for invoice in await self.desk.invoices(user)] == [InvoiceState.PAID]
        causes = Counter(posting.cause for posting in await self.desk.ledger())
        assert (len(causes), set(causes.values())) == (len(users), {2}), "billed and paid"


@pytest.fixture
async def office(postgres_cluster: PostgresCluster) -> AsyncIterator[Office]:
    names = [postgres_cluster.primary.new_database() for _ in range(2)]
    billing, identity = (Database(postgres_cluster.url(name), synchronous=True) for name in names)
    await billing.migrate("services.billing")
    await identity.migrate("services.identity")
    desk, accounts = Desk(billing, ManualClock(NOW)), identity_sql.SqlStore(identity)
    yield Office(cluster=postgres_cluster, billing=billing, identity=identity, desk=desk, accounts=accounts)
    await billing.close()
    await identity.close()
    for name in names:
        postgres_cluster.primary.drop_database(name)


async def test_a_lost_primary_costs_nothing_that_was_acknowledged_and_nothing_is_done_twice(
    office: Office,
) -> None:
    cluster, plan = office.cluster, await office.desk.plan()
    waiting = [f"user-{number}" for number in range(120)]
    users = list(waiting)
    busy = asyncio.Event()

    async def writer() -> None:
        while waiting:
            await office.serve(waiting.pop(), plan)
            if len(office.served) == 20:
                busy.set()

    async with asyncio.timeout(WITHIN_S):
        writers = [asyncio.create_task(writer()) for _ in range(6)]
        await busy.wait()
        lost = cluster.primary
        await asyncio.to_thread(lost.kill)
        before = list(office.served)
        await asyncio.to_thread(cluster.promote)
        await asyncio.gather(*writers)
    assert lost is not cluster.primary
    assert set(before) < set(office.served) == set(users)
    assert office.told, "nobody noticed"
    await office.expect_one_effect_each(users)
    await asyncio.to_thread(cluster.add_standby, lost)
    await asyncio.to_thread(cluster.wait_for_standbys, 2)


async def refusal(office: Office, plan: Plan) -> NoSynchronousStandby:
    """How new subscribers are refused once the standbys are missed; they are believed in for a moment."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                await office.desk.subscribe(new_id(), plan)
            except NoSynchronousStandby as error:
                return error
            except OutcomeUnknown:
                continue


async def test_without_standbys_money_is_refused_before_anything_is_done(office: Office) -> None:
    plan = await office.desk.plan()
    for standby in office.cluster.standbys:
        await asyncio.to_thread(standby.stop)
    refused = await refusal(office, plan)
    assert refused.retry_after_ms == 1_000
    assert (await office.desk.billing.get_plan(plan.id)) == plan
    await expect_one_subscription(office, plan)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_wait_for_standbys_that_is_cut_short_is_unknown_and_its_repetition_has_one_effect(
    office: Office, monkeypatch: pytest.MonkeyPatch, how: Literal["cancel", "terminate"]
) -> None:
    monkeypatch.setattr(sql_postgres, "_STANDBY_KNOWN_S", 1_000.0)
    plan = await office.desk.plan()
    for standby in office.cluster.standbys:
        await asyncio.to_thread(standby.stop)
    pending = asyncio.create_task(office.desk.subscribe("ann", plan, "r1"))
    await asyncio.to_thread(cut_the_wait, office.cluster, how)
    with pytest.raises(OutcomeUnknown):
        await pending
    await expect_one_subscription(office, plan)


async def test_a_wait_for_standbys_that_takes_too_long_is_unknown_also_for_who_repeats_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_postgres, "TRANSACTION_LIMIT_S", 1.0)
    plan = await office.desk.plan()
    for standby in office.cluster.standbys:
        await asyncio.to_thread(standby.stop)
    monkeypatch.setattr(sql_postgres.Postgres, "before_write", lambda *_: None)
    for _ in range(2):  # the second time it is there, but on this node alone: nothing to acknowledge
        with pytest.raises(OutcomeUnknown):
            await office.desk.subscribe("ann", plan, "r1")
    await expect_one_subscription(office, plan)


async def expect_one_subscription(office: Office, plan: Plan) -> None:
    """Once the standbys are back, the repeated request is answered, and has had one effect."""
    for standby in office.cluster.standbys:
        await asyncio.to_thread(standby.start)
    await asyncio.to_thread(office.cluster.wait_for_standbys, 2)
    await office.insist(lambda: office.desk.subscribe("ann", plan, "r1"))
    assert len(await office.desk.billing.list_subscriptions("ann", "", 10)) == 1


def cut_the_wait(cluster: PostgresCluster, how: str) -> None:
    """As an administrator does."""
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'kino'"
    wait_until(lambda: cluster.primary.value(f"SELECT count(*) {waiting}") == 1, 30, "a commit that waits")
    cluster.primary.execute(f"SELECT pg_{how}_backend(pid) {waiting}")


async def test_one_standby_is_enough(office: Office) -> None:
    plan = await office.desk.plan()
    one = office.cluster.standbys[0]
    await asyncio.to_thread(one.stop)
    await office.desk.subscribe("ann", plan)
    await asyncio.to_thread(one.start)
    await asyncio.to_thread(office.cluster.wait_for_standbys, 2)


async def test_a_promoted_node_without_standbys_takes_no_money(office: Office) -> None:
    plan = await office.desk.plan()
    primary = office.cluster.primary
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
    primary.execute("SELECT pg_reload_conf()")
    await refusal(office, plan)
    assert await office.billing.read(lambda conn: conn.execute(text("SELECT 1")).scalar()) == 1
    office.cluster.require_standby()
