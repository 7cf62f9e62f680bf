"""Builds identity."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from kino.catalog.v1.watchlist_pb2 import ClearWatchlistRequest
from kino.catalog.v1.watchlist_pb2_grpc import WatchlistServiceStub
from kino.history.v1.history_pb2 import ClearHistoryRequest
from kino.history.v1.history_pb2_grpc import HistoryServiceStub
from kino.identity.v1 import identity_pb2_grpc
from services.identity.background import Eraser
from services.identity.passwords import Argon2Passwords
from services.identity.rpc import IdentityServicer
from services.identity.store_sql import SqlStore
from services.identity.tokens import Tokens
from services.identity.usecases import Identity
from services.runtime.app import Context, ServiceApp
from services.runtime.logs import logger
from services.runtime.paging import Pager

_log = logger("identity")


def claim_file(data_dir: Path) -> Path:
    """The file that holds the operator's claim token until it is used."""
    return data_dir / "run" / "claim"


async def build(ctx: Context) -> ServiceApp:
    """Identity on its database; a deployment without an operator gets a claim token in `claim_file`."""
    database = ctx.database("identity", synchronous=True)
    argon2 = await asyncio.to_thread(Argon2Passwords)
    path = claim_file(ctx.settings.data_dir)
    erasing = asyncio.Event()
    identity = Identity(
        store=SqlStore(database),
        passwords=argon2,
        tokens=Tokens(ctx.signer, ctx.sealer),
        clock=ctx.clock,
        claimed=lambda: path.unlink(missing_ok=True),
        deleted=erasing.set,
    )
    history, watchlist = ctx.channels.stub(HistoryServiceStub), ctx.channels.stub(WatchlistServiceStub)
    erase = (
        lambda profile: history.ClearHistory(ClearHistoryRequest(parent=profile)),
        lambda profile: watchlist.ClearWatchlist(ClearWatchlistRequest(parent=profile)),
    )
    servicer = IdentityServicer(identity, Pager(ctx.sealer, ctx.clock))

    async def close() -> None:
        await asyncio.to_thread(argon2.close)

    return ServiceApp(
        name="identity",
        grpc_services=["kino.identity.v1.IdentityService"],
        register=lambda server: identity_pb2_grpc.add_IdentityServiceServicer_to_server(servicer, server),
        dependencies=[
            database.dependency(
                "services.identity",
                "kino.identity.v1.IdentityService",
                then=lambda: _offer_claim(identity, path),
            )
        ],
        background=[Eraser(identity, erase, ctx.clock, erasing).run],
        close=close,
    )


async def _offer_claim(identity: Identity, path: Path) -> None:
    current = await asyncio.to_thread(_read, path)
    token = await identity.offer_claim(current)
    if token is None:
        await asyncio.to_thread(path.unlink, missing_ok=True)
    elif token != current:
        await asyncio.to_thread(_write_secret, path, token)
        _log.info("no operator yet: claim the deployment with the token in the claim file", file=str(path))


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None


def _write_secret(path: Path, text: str) -> None:
    """Whole or not at all, and for nobody else's eyes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
