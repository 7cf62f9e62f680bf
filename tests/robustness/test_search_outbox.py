"""Catalogs, search and Elasticsearch are killed in the midst of changes: the index ends as the catalog is."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1.resources_pb2 import Title
from kino.search.v1 import search_pb2, search_pb2_grpc
from services.runtime.auth import TokenSigner
from services.runtime.channels import CHANNEL_OPTIONS
from services.runtime.keys import open_keys
from services.runtime.testing import bearer
from tests.engines.elasticsearch import ElasticsearchServer
from tests.engines.postgres import Postgres
from tests.engines.process import EngineProcess, free_port

pytestmark = pytest.mark.engine

_CALL_S, _SETTLED_S = 30.0, 90.0


class Nodes:
    """Two catalogs on one PostgreSQL, one search, and an Elasticsearch of its own."""

    def __init__(self, folder: Path, sql_url: str) -> None:
        self.engine = ElasticsearchServer(folder / "engine", heap_mib=256)
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("catalog-0", "catalog-1", "search")}
        self.keys = folder / "keys"
        both = f"{self.addresses['catalog-0']},{self.addresses['catalog-1']}"
        endpoints = {"catalog": both, "search": self.addresses["search"]}
        env = {
            "KINO_KEYS_DIR": str(self.keys),
            "KINO_SQL_URLS": json.dumps({"catalog": sql_url}),
            "KINO_SEARCH_STORE": "elasticsearch",
            "KINO_ELASTICSEARCH_URLS": json.dumps([self.engine.url]),
            "KINO_ENDPOINTS": json.dumps(endpoints),
        }
        self.processes = {name: self._process(folder / name, name, env) for name in self.addresses}
        self.truth: dict[str, str] = {}

    def _process(self, folder: Path, name: str, env: dict[str, str]) -> EngineProcess:
        folder.mkdir(parents=True)
        own = {"KINO_DATA_DIR": str(folder), "KINO_GRPC_PORT": self.addresses[name].rpartition(":")[2]}
        argv = [sys.executable, "-m", "cli.main", "serve", name.split("-")[0]]
        return EngineProcess(name, [*argv, "--address-file", folder / "serving.json"], folder, {**env, **own})

    def start(self, name: str) -> None:
        """Start one of Kino's processes."""
        said = Path(self.processes[name].log_path).parent / "serving.json"
        said.unlink(missing_ok=True)
        self.processes[name].start(said.exists)

    def stop(self) -> None:
        """End everything."""
        for process in self.processes.values():
            process.stop()
        self.engine.stop()

    @asynccontextmanager
    async def channel(self, name: str) -> AsyncIterator[tuple[grpc.aio.Channel, Any]]:
        """A channel to a process, and an operator's metadata."""
        signer = TokenSigner(open_keys(self.keys).signing_pem)
        token, _ = signer.sign("users/ann", frozenset({"operator", "publisher"}), "sessions/test")
        async with grpc.aio.insecure_channel(self.addresses[name], options=CHANNEL_OPTIONS) as channel:
            yield channel, bearer(token)

    async def change(self, name: str, word: str, numbers: range) -> None:
        """Make titles, rename each, and delete every fifth."""
        async with self.channel(name) as (channel, token):
            stub: Any = catalog_pb2_grpc.CatalogServiceStub(channel)
            for number in numbers:
                made = await stub.CreateTitle(
                    catalog_pb2.CreateTitleRequest(
                        title=Title(display_name=f"{word} draft {number}"), request_id=str(uuid.uuid4())
                    ),
                    metadata=token, timeout=_CALL_S,
                )  # fmt: skip
                title = made.title.name
                renamed = Title(name=title, display_name=f"{word} {number}")
                await stub.UpdateTitle(
                    catalog_pb2.UpdateTitleRequest(
                        title=renamed, update_mask=FieldMask(paths=["display_name"])
                    ),
                    metadata=token, timeout=_CALL_S,
                )  # fmt: skip
                self.truth[title] = renamed.display_name
                if number % 5 == 0:
                    await stub.DeleteTitle(
                        catalog_pb2.DeleteTitleRequest(name=title), metadata=token, timeout=_CALL_S
                    )
                    del self.truth[title]

    async def settled(self, word: str) -> None:
        """Return once a search for `word` finds what the catalog was last told of it."""
        wanted = {title: name for title, name in self.truth.items() if name.startswith(word)}
        seen: dict[str, str] | None = None
        async with asyncio.timeout(_SETTLED_S), self.channel("search") as (channel, token):
            stub: Any = search_pb2_grpc.SearchServiceStub(channel)
            while seen != wanted:
                try:
                    request = search_pb2.SearchTitlesRequest(query=word, page_size=50)
                    answer = await stub.SearchTitles(request, metadata=token, timeout=_CALL_S)
                    seen = {hit.title: hit.display_name for hit in answer.hits}
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise


@pytest.fixture(scope="module")
def nodes(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    database = postgres.new_database()
    made = Nodes(tmp_path_factory.mktemp("outbox"), postgres.url(database))
    try:
        made.engine.start()
        for name in made.processes:
            made.start(name)
        yield made
    finally:
        made.stop()
        postgres.drop_database(database)


async def test_what_changes_while_the_engine_is_down_arrives_later(nodes: Nodes) -> None:
    nodes.engine.kill()
    await asyncio.gather(
        nodes.change("catalog-0", "Stalker", range(12)), nodes.change("catalog-1", "Stalker", range(12, 24))
    )
    await asyncio.to_thread(nodes.engine.start)
    await nodes.settled("Stalker")


async def test_what_a_killed_catalog_did_not_send_another_sends(nodes: Nodes) -> None:
    nodes.processes["search"].kill()
    await nodes.change("catalog-0", "Nostalghia", range(10))
    nodes.processes["catalog-0"].kill()
    await asyncio.to_thread(nodes.start, "search")
    await nodes.settled("Nostalghia")
    await asyncio.to_thread(nodes.start, "catalog-0")


async def test_a_search_that_is_killed_among_news_gets_them_again(nodes: Nodes) -> None:
    changes = asyncio.gather(
        nodes.change("catalog-0", "Zerkalo", range(20)), nodes.change("catalog-1", "Zerkalo", range(20, 40))
    )
    for _ in range(2):
        await asyncio.to_thread(nodes.processes["search"].kill)
        await asyncio.to_thread(nodes.start, "search")
    await changes
    await nodes.settled("Zerkalo")
