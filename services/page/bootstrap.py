"""Builds the page."""

from __future__ import annotations

from pathlib import Path

from kino.page.v1 import page_pb2_grpc
from services.page.rpc import PageServicer
from services.page.store_files import FileAssets
from services.runtime.app import Context, ServiceApp

#: What `make web` builds.
DIST = Path(__file__).parent / "dist"


async def build(ctx: Context) -> ServiceApp:
    """The page over the files that ship with the package."""
    servicer = PageServicer(FileAssets(DIST))
    return ServiceApp(
        name="page",
        grpc_services=["kino.page.v1.PageService"],
        register=lambda server: page_pb2_grpc.add_PageServiceServicer_to_server(servicer, server),
    )
