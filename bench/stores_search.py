"""Search through the port against the same requests on the bare client, and the embedded index beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from elasticsearch import AsyncElasticsearch

from bench.report import Row
from bench.timing import Times, rows
from services.runtime.claims import temporary
from services.runtime.sql import Database
from services.search.model import Document, Viewer
from services.search.store import TitleIndex
from services.search.store_elastic import ElasticIndex, candidates, writes
from services.search.store_sqlite import SqliteIndex
from tests.engines.elasticsearch import ElasticsearchServer

_TITLES, _BATCH, _CALLS, _HITS = 1_000, 100, 20, 200
_BARE = "bare client"
_VIEWER = Viewer(subject="users/bench")
Call = Callable[[int], Awaitable[Any]]


async def measure(rounds: int) -> list[Row]:
    """Rates of putting batches and of searching, in turns."""
    with temporary("bench") as scratch:
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
        await client.search(index="kino-bench", **candidates(_query(number), _VIEWER, _HITS))

    ways: dict[str, dict[str, Call]] = {
        "put": {
            "elasticsearch": lambda n: port.put(_batch(n)),
            _BARE: bare_put,
            "embedded": lambda n: embedded.put(_batch(n)),
        },
        "search": {
            "elasticsearch": lambda n: port.search(_query(n), _VIEWER, _HITS),
            _BARE: bare_search,
            "embedded": lambda n: embedded.search(_query(n), _VIEWER, _HITS),
        },
    }
    times = {kind: {name: Times() for name in calls} for kind, calls in ways.items()}
    first = 0
    for turn in range(rounds + 1):
        for kind, calls in ways.items():
            for name, call in calls.items():
                # Each way puts newer versions than the one before. The first round opens connections.
                keys = range(first, first + _CALLS)
                first += _CALLS
                await (times[kind][name] if turn else Times()).round(call, keys, at_a_time=1)
    return [
        row
        for kind, found in times.items()
        for row in rows(f"search: {kind}", found, peer=_BARE, ours="elasticsearch")
    ]


def _batch(number: int) -> list[Document]:
    first = number * _BATCH % _TITLES
    return [
        Document(title=f"titles/{n}", version=number + 1, display_name=_query(n), visible=True)
        for n in range(first, first + _BATCH)
    ]


def _query(number: int) -> str:
    return f"The film of {number * 7919 % 10_007} nights"
