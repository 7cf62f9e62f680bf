"""Search through the port against the same requests on the bare client, and the embedded index beside it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from elasticsearch import AsyncElasticsearch

from bench.report import Row
from services.runtime.sql import Database
from services.search.model import Document, Viewer
from services.search.store import TitleIndex
from services.search.store_elastic import ElasticIndex, candidates, writes
from services.search.store_sqlite import SqliteIndex
from tests.engines.elasticsearch import ElasticsearchServer

_TITLES, _BATCH, _SEARCHES = 1_000, 100, 50
_GOAL = ">=0.8"
_VIEWER = Viewer(subject="users/bench")
Call = Callable[[int], Awaitable[Any]]


async def measure(rounds: int) -> list[Row]:
    """Rates of putting batches and of searching, in turns."""
    with tempfile.TemporaryDirectory(prefix="kino-bench-") as scratch:
        server = ElasticsearchServer(Path(scratch))
        database = Database(f"sqlite:///{scratch}/search.db")
        client = AsyncElasticsearch(server.url)
        port = ElasticIndex([server.url], "kino-bench")
        try:
            server.start()
            await database.migrate("services.search")
            await port.prepare()
            embedded = SqliteIndex(database)
            return await _measured(port, client, embedded, rounds)
        finally:
            await port.close()
            await client.close()
            await database.close()
            server.stop()


async def _measured(
    port: TitleIndex, client: AsyncElasticsearch, embedded: TitleIndex, rounds: int
) -> list[Row]:
    async def bare_put(batch: int) -> None:
        await client.bulk(
            operations=writes("kino-bench", _batch(batch)), require_alias=True, refresh="wait_for"
        )

    async def bare_search(number: int) -> None:
        await client.search(index="kino-bench", **candidates(_query(number), _VIEWER, 200))

    ways: dict[str, tuple[Call, Call]] = {
        "elasticsearch": (lambda n: port.put(_batch(n)), lambda n: port.search(_query(n), _VIEWER, 200)),
        "bare client": (bare_put, bare_search),
        "embedded": (lambda n: embedded.put(_batch(n)), lambda n: embedded.search(_query(n), _VIEWER, 200)),
    }
    rates: dict[tuple[str, str], list[float]] = {}
    batch = 0
    for _ in range(rounds):
        for name, (put, search) in ways.items():
            puts = _TITLES // _BATCH
            rates.setdefault((name, "put"), []).append(await _rate(put, range(batch, batch + puts)))
            rates.setdefault((name, "search"), []).append(await _rate(search, range(_SEARCHES)))
            batch += puts
    return [_row(name, kind, rates) for name, kind in rates if name != "bare client"]


async def _rate(call: Call, numbers: range) -> float:
    began = time.perf_counter()
    for number in numbers:
        await call(number)
    return len(numbers) / (time.perf_counter() - began)


def _row(name: str, kind: str, rates: dict[tuple[str, str], list[float]]) -> Row:
    rate, bare = median(rates[name, kind]), median(rates["bare client", kind])
    title = f"search {name}: {kind}"
    if name == "embedded":
        return Row(name=title, value=rate, unit="calls/s")
    return Row(name=title, value=rate, unit="calls/s", peer="bare client", ratio=rate / bare, goal=_GOAL)


def _batch(number: int) -> list[Document]:
    first = number * _BATCH % _TITLES
    return [
        Document(title=f"titles/{n}", version=number + 1, display_name=_query(n), visible=True)
        for n in range(first, first + _BATCH)
    ]


def _query(number: int) -> str:
    return f"The film of {number * 7919 % 10_007} nights"
