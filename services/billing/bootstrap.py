"""Builds billing."""

from __future__ import annotations

import asyncio

from kino.billing.v1 import billing_pb2_grpc
from services.billing.rpc import BillingServicer
from services.billing.store_sql import SqlStore
from services.billing.usecases import Billing
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager

#: Pause between two runs of the biller; nothing but the freshness of lists depends on it.
_BILLER_PAUSE_S = 60.0


async def build(ctx: Context) -> ServiceApp:
    """Billing on its database, with the biller running beside it from the start on."""
    database = ctx.database("billing", synchronous=True)
    billing = Billing(store=SqlStore(database), clock=ctx.clock)
    servicer = BillingServicer(billing, Pager(ctx.sealer, ctx.clock))

    async def biller() -> None:
        while True:
            await billing.run_biller()
            await asyncio.sleep(_BILLER_PAUSE_S)

    return ServiceApp(
        name="billing",
        grpc_services=["kino.billing.v1.BillingService"],
        register=lambda server: billing_pb2_grpc.add_BillingServiceServicer_to_server(servicer, server),
        dependencies=[database.dependency("services.billing", "kino.billing.v1.BillingService")],
        background=[biller],
    )
