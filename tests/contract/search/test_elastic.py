"""What the index does when Elasticsearch isn't as it should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.runtime.call import set_deadline
from services.runtime.ids import new_id
from services.runtime.life import supervise
from services.search.model import Document, Viewer
from services.search.store import IndexLost, SearchUnavailable
from services.search.store_elastic import ElasticIndex, ForeignIndex, WrongMapping, WrongServer
from services.search.usecases import Search
from tests.engines.elasticsearch import ElasticsearchServer, drop_indexes, request
from tests.engines.process import free_port
from tests.support.elastic import elastic_index

pytestmark = pytest.mark.engine

OPERATOR = Viewer(subject="users/root", sees_all=True)
SOLARIS = Document(title="titles/1", version=1, display_name="Solaris")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ElasticsearchServer]:
    """A node of its own, to be ended in the midst."""
    made = ElasticsearchServer(tmp_path, heap_mib=256)
    await asyncio.to_thread(made.start)
    yield made
    await asyncio.to_thread(made.stop)


async def found(index: ElasticIndex | Search, query: str) -> list[str]:
    hits = (
        (await index.find(query, OPERATOR, 0, 50)).hits
        if isinstance(index, Search)
        else await index.search(query, OPERATOR, 50)
    )
    return [hit.document.display_name for hit in hits]


async def comes_back(search: Search, query: str, names: Sequence[str]) -> None:
    async with asyncio.timeout(90):
        while True:
            try:
                assert await found(search, query) == names
                return
            except SearchUnavailable:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def kept(index: ElasticIndex, *catalog: Document) -> AsyncIterator[Search]:
    """The use cases over an index, with the catalog it is built from."""

    async def walk() -> AsyncIterator[Sequence[Document]]:
        yield catalog

    search = Search(index, walk)
    keeper = asyncio.create_task(supervise("search", search.keep_built))
    yield search
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    await search.close()


async def test_nothing_acknowledged_is_lost_when_the_engine_is_killed(server: ElasticsearchServer) -> None:
    async with elastic_index(server.url) as index:
        await index.prepare()
        acknowledged: list[str] = []
        enough = asyncio.Event()

        async def write(writer: int) -> Exception:
            number = 0
            while True:
                number += 1
                name = f"Rocky {writer} {number}"
                try:
                    await index.put(
                        [Document(title=f"titles/{writer}-{number}", version=1, display_name=name)]
                    )
                except Exception as error:
                    return error
                acknowledged.append(name)
                if len(acknowledged) == 40:
                    enough.set()

        writers = [asyncio.create_task(write(writer)) for writer in range(4)]
        await asyncio.wait_for(enough.wait(), 60)
        server.kill()
        assert {type(error) for error in await asyncio.gather(*writers)} == {SearchUnavailable}
        with pytest.raises(SearchUnavailable) as refused:
            await index.search("rocky", OPERATOR, 10)
        assert refused.value.retry_after_ms
        await asyncio.to_thread(server.start)
        await index.put([SOLARIS])
        assert await found(index, "solaris") == ["Solaris"]
        missing = [name for name in acknowledged if name not in await found(index, name)]
        assert missing == []


async def test_an_index_that_was_deleted_is_built_anew(elasticsearch: str) -> None:
    alias = f"kino-test-{new_id()}"
    async with elastic_index(elasticsearch, alias=alias) as index:
        await index.prepare()
        async with kept(index, SOLARIS) as search:
            await comes_back(search, "solaris", ["Solaris"])
            drop_indexes(elasticsearch, alias)
            with pytest.raises(IndexLost):
                await index.put([SOLARIS])
            with pytest.raises(IndexLost):
                await search.find("solaris", OPERATOR, 0, 10)
            await comes_back(search, "solaris", ["Solaris"])
            await search.put([Document(title="titles/2", version=1, display_name="Stalker")])
            assert await found(search, "stalker") == ["Stalker"]


async def test_an_index_that_was_damaged_is_built_anew(server: ElasticsearchServer) -> None:
    async with elastic_index(server.url) as index:
        await index.prepare()
        async with kept(index, SOLARIS) as search:
            await comes_back(search, "solaris", ["Solaris"])
            await asyncio.to_thread(server.stop)
            for file in (server.folder / "data" / "indices").rglob("index/*"):
                file.write_bytes(b"\0" * file.stat().st_size)
            await asyncio.to_thread(server.start, "red")
            await comes_back(search, "solaris", ["Solaris"])


async def test_an_engine_that_is_away_is_told_by_a_typed_error(elasticsearch: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    index = ElasticIndex([nobody], "kino-test")
    for call in (index.prepare(), index.put([SOLARIS]), index.search("x", OPERATOR, 1), index.begin()):
        with pytest.raises(SearchUnavailable):
            await call
    await index.close()
    async with elastic_index(elasticsearch, urls=[nobody, elasticsearch]) as reached:
        await reached.prepare()
        await reached.put([SOLARIS])
        assert await found(reached, "solaris") == ["Solaris"]


async def test_an_engine_that_never_answers_is_waited_for_no_longer_than_the_call_lasts() -> None:
    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    index = ElasticIndex([address], "kino-test")
    set_deadline(0.2)
    async with asyncio.timeout(5):
        with pytest.raises(SearchUnavailable):
            await index.search("solaris", OPERATOR, 10)
    await index.close()
    silent.close()


async def test_what_is_no_elasticsearch_is_refused() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    index = ElasticIndex([f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"], "kino-test")
    with pytest.raises(WrongServer):
        await index.prepare()
    await index.close()
    other.close()


async def test_an_index_of_others_is_left_alone(elasticsearch: str) -> None:
    alias = f"kino-test-{new_id()}"
    request(elasticsearch, f"/{alias}", "PUT")
    async with elastic_index(elasticsearch, alias=alias) as index:
        with pytest.raises(ForeignIndex):
            await index.prepare()
    request(elasticsearch, f"/{alias}", "DELETE")


async def test_an_index_that_was_changed_from_outside_is_told_and_built_anew(
    elasticsearch: str,
) -> None:
    alias = f"kino-test-{new_id()}"
    async with elastic_index(elasticsearch, alias=alias) as index:
        await index.prepare()
        kino = request(elasticsearch, f"/{alias}/_mapping")[f"{alias}-1"]["mappings"]
        del kino["properties"]["pieces"]
        request(elasticsearch, f"/{alias}-1", "DELETE")
        body: dict[str, Any] = {"mappings": kino, "aliases": {alias: {}}}
        request(elasticsearch, f"/{alias}-1", "PUT", body)
        with pytest.raises(WrongMapping):
            await index.put([SOLARIS])
        async with kept(index, SOLARIS) as search:
            await comes_back(search, "solaris", ["Solaris"])
            await search.put([SOLARIS])


async def test_an_index_of_another_format_is_built_anew(elasticsearch: str) -> None:
    alias = f"kino-test-{new_id()}"
    async with elastic_index(elasticsearch, alias=alias) as index:
        await index.finish(await index.begin())
        assert await index.built()
        older = {"_meta": {"kino": {"format": 0, "built": True}}}
        request(elasticsearch, f"/{alias}/_mapping", "PUT", older)
        assert not await index.built()
        async with kept(index, SOLARIS) as search:
            await comes_back(search, "solaris", ["Solaris"])


async def test_processes_that_start_together_share_one_index(elasticsearch: str) -> None:
    alias = f"kino-test-{new_id()}"
    async with elastic_index(elasticsearch, alias=alias) as index:
        others = [ElasticIndex([elasticsearch], alias) for _ in range(3)]
        await asyncio.gather(*(one.prepare() for one in (index, *others)))
        await index.put([SOLARIS])
        assert [await found(one, "solaris") for one in others] == [["Solaris"]] * 3
        for one in others:
            await one.close()
