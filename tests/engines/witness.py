"""Writes all the while, remembers what was acknowledged, and at the end looks whether all is there, once."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from cli.client import Kino
from cli.stream_check import CheckFailed, check
from kino.billing.v1 import billing_pb2, billing_pb2_grpc
from kino.billing.v1 import resources_pb2 as billing
from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as catalog
from kino.common.v1 import money_pb2

#: A write is repeated with the same `request_id` for as long as this, then it counts as a failure.
_PATIENCE_S = 90.0
_PAUSE_S = 0.2
_PAGE = 100
#: What a client may repeat: the node or engine was away, or it is not known whether the write was stored.
_REPEATED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
    }
)


@dataclass(kw_only=True)
class Witness:
    """Makes titles (catalog) and plans (money) as an operator, one after the other."""

    operator: Kino
    #: Resource names by what they are called, as acknowledged.
    titles: dict[str, str] = field(default_factory=dict)
    plans: dict[str, str] = field(default_factory=dict)
    #: Tries that did not end with an answer, by status.
    repeats: dict[str, int] = field(default_factory=dict)
    longest_wait_s: float = 0.0

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write until the block ends. Raises what a write in it failed with for good."""
        work = asyncio.create_task(self._write())
        try:
            yield
            if work.done():
                work.result()
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _write(self) -> None:
        while True:
            await self._title(f"Witness {len(self.titles) + 1}")
            await self._plan(f"Witness {len(self.plans) + 1}")
            await asyncio.sleep(_PAUSE_S)

    async def _title(self, name: str) -> None:
        stub = self.operator.stub(catalog_pb2_grpc.CatalogServiceStub)
        request = catalog_pb2.CreateTitleRequest(
            title=catalog.Title(display_name=name), request_id=str(uuid.uuid4())
        )
        self.titles[name] = (await self.insist(stub.CreateTitle, request)).title.name

    async def _plan(self, name: str) -> None:
        stub = self.operator.stub(billing_pb2_grpc.BillingServiceStub)
        plan = billing.Plan(
            display_name=name,
            price=money_pb2.Money(currency_code="EUR", amount_minor=100 + len(self.plans)),
            interval=billing.Plan.INTERVAL_MONTH,
            concurrent_stream_limit=1,
        )
        request = billing_pb2.CreatePlanRequest(plan=plan, request_id=str(uuid.uuid4()))
        self.plans[name] = (await self.insist(stub.CreatePlan, request)).plan.name

    async def insist(self, method: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
        """The answer, asked for again as a careful client does."""
        started = time.monotonic()
        while True:
            try:
                answer = await method(request)
                self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - started)
                return answer
            except grpc.aio.AioRpcError as error:
                code = error.code()
                if code not in _REPEATED or time.monotonic() - started > _PATIENCE_S:
                    raise
                self.repeats[code.name] = self.repeats.get(code.name, 0) + 1
            await asyncio.sleep(_PAUSE_S)

    async def check(self) -> str:
        """Look whether everything acknowledged is there, and nothing twice. Raises `CheckFailed`."""
        if not self.titles or not self.plans:
            raise CheckFailed("Writes that were acknowledged", "some", "none")
        found = [title async for title in self._all_titles()]
        ours = sorted(
            (title.display_name, title.name) for title in found if title.display_name in self.titles
        )
        check("Titles that were acknowledged", sorted(self.titles.items()), ours)
        stub = self.operator.stub(billing_pb2_grpc.BillingServiceStub)
        plans = [plan async for plan in self._all_plans(stub)]
        ours = sorted((plan.display_name, plan.name) for plan in plans if plan.display_name in self.plans)
        check("Plans that were acknowledged", sorted(self.plans.items()), ours)
        repeats = ", ".join(f"{count} {code}" for code, count in sorted(self.repeats.items())) or "none"
        return (
            f"{len(self.titles)} titles and {len(self.plans)} plans acknowledged, each there once; repeated "
            f"tries: {repeats}; longest wait {self.longest_wait_s:.1f} s"
        )

    async def _all_titles(self) -> AsyncIterator[catalog.Title]:
        stub = self.operator.stub(catalog_pb2_grpc.CatalogServiceStub)
        request = catalog_pb2.ListTitlesRequest(page_size=_PAGE)
        while True:
            page = await self.insist(stub.ListTitles, request)
            for title in page.titles:
                yield title
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _all_plans(self, stub: Any) -> AsyncIterator[billing.Plan]:
        request = billing_pb2.ListPlansRequest(page_size=_PAGE)
        while True:
            page = await self.insist(stub.ListPlans, request)
            for plan in page.plans:
                yield plan
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
