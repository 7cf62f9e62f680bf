from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from kino.search.v1 import search_pb2
from services.catalog.background import Outbox
from services.catalog.model import Viewer
from services.catalog.store_sql import SqlStore
from services.catalog.text import TitleText
from services.catalog.usecases import Catalog
from services.runtime.clock import ManualClock
from services.runtime.metrics import REGISTRY
from services.runtime.sql import Database

ANN = Viewer(subject="users/ann")


class Search:
    """Takes titles, and fails over those whose name it doesn't like."""

    def __init__(self) -> None:
        self.indexed: list[str] = []
        self.disliked = "poison"
        self.code = grpc.StatusCode.INTERNAL

    async def index(self, request: search_pb2.IndexTitlesRequest) -> search_pb2.IndexTitlesResponse:
        names = [document.display_name for document in request.documents]
        if self.disliked in names:
            raise grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata(), "mapping failed")
        self.indexed += names
        return search_pb2.IndexTitlesResponse()


def told() -> float | None:
    """How many titles the operator is told of."""
    return REGISTRY.get_sample_value("kino_catalog_titles_search_refuses")


async def test_a_title_that_search_refuses_holds_nobody_up_is_told_and_goes_when_it_was_changed(
    sql_database: Database,
) -> None:
    clock, search = ManualClock(), Search()
    catalog = Catalog(SqlStore(sql_database), clock)
    outbox = Outbox(catalog, search.index, asyncio.Event())
    names = ("one", "poison", "two")
    made = [await catalog.create(ANN.subject, TitleText(display_name=name), name, b"") for name in names]

    assert await outbox.send_some()
    assert (sorted(search.indexed), await outbox.send_some()) == (["one", "two"], False)
    for delay_s in (5, 10, 20):
        assert told() == 0
        clock.advance(timedelta(seconds=delay_s))
        assert await outbox.send_some()
    assert told() == 1
    assert not await outbox.send_some()

    await catalog.update(ANN, made[1].title_id, lambda text: TitleText(display_name="cured"), None, "")
    assert await outbox.send_some()
    assert (search.indexed[2:], await catalog.unsent(9)) == (["cured"], [])
    assert told() == 0


async def test_a_search_that_is_away_is_no_fault_of_a_title(sql_database: Database) -> None:
    search = Search()
    search.code = grpc.StatusCode.UNAVAILABLE
    catalog = Catalog(SqlStore(sql_database), ManualClock())
    await catalog.create(ANN.subject, TitleText(display_name="poison"), "id", b"")
    with pytest.raises(grpc.aio.AioRpcError):
        await Outbox(catalog, search.index, asyncio.Event()).send_some()
    assert len(await catalog.unsent(9)) == 1
