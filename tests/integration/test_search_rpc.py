from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1.resources_pb2 import Title
from kino.search.v1 import search_pb2 as pb
from kino.search.v1 import search_pb2_grpc
from kino.search.v1.resources_pb2 import TitleDocument, TitleHit
from services.catalog.bootstrap import build as build_catalog
from services.runtime.app import Running
from services.runtime.ids import new_id
from services.runtime.status import error_of
from services.runtime.testing import channel_of, service_token, serving, settings_in, user_token
from services.search.bootstrap import build as build_search
from tests.engines.elasticsearch import drop_indexes


class World:
    def __init__(self, process: Running, stack: AsyncExitStack) -> None:
        self.process = process
        self.stack = stack

    async def channel(self, user: str | None, *roles: str) -> Any:
        token = user_token(self.process, user, *roles) if user else service_token(self.process, "catalog")
        return await self.stack.enter_async_context(channel_of(self.process, token))

    async def search(self, user: str | None, *roles: str) -> Any:
        return search_pb2_grpc.SearchServiceStub(await self.channel(user, *roles))


@pytest.fixture(params=["embedded", pytest.param("elasticsearch", marks=pytest.mark.engine)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    engine: dict[str, Any] = {"search_store": request.param}
    async with AsyncExitStack() as stack:
        if request.param == "elasticsearch":
            url, index = request.getfixturevalue("elasticsearch"), f"kino-{new_id()}"
            engine |= {"elasticsearch_urls": [url], "elasticsearch_index": index}
            stack.callback(drop_indexes, url, index)
        process = await stack.enter_async_context(
            serving(
                tmp_path,
                settings=settings_in(tmp_path, **engine),
                catalog=build_catalog,
                search=build_search,
            )
        )
        world = World(process, stack)
        # The first build is over: a later one would forget what the catalog does not know.
        await (await world.search("users/root", "operator")).RebuildIndex(pb.RebuildIndexRequest())
        yield world


def document(number: int, name: str, **fields: Any) -> TitleDocument:
    values = {"version": 1, "owner": "users/ann", "visible": True, **fields}
    return TitleDocument(title=f"titles/t{number}", display_name=name, **values)


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_of(caught.value)
    return error.code.name, error.reason


async def names(stub: Any, query: str, **fields: Any) -> list[str]:
    response = await stub.SearchTitles(pb.SearchTitlesRequest(query=query, **fields))
    return [hit.display_name for hit in response.hits]


async def until(stub: Any, query: str, expected: list[str]) -> None:
    async with asyncio.timeout(20):
        while await names(stub, query) != expected:
            await stub.SearchTitles(pb.SearchTitlesRequest(query=query))


async def test_indexed_titles_are_found_as_far_as_the_caller_may_see_them(world: World) -> None:
    service, bob, ann = (
        await world.search(None),
        await world.search("users/bob"),
        await world.search("users/ann"),
    )
    hidden = document(2, "Solaris", visible=False, release_year=2002)
    await service.IndexTitles(
        pb.IndexTitlesRequest(documents=[document(1, "Solaris", release_year=1972), hidden])
    )
    answer = await bob.SearchTitles(pb.SearchTitlesRequest(query="soalris"))
    (hit,) = answer.hits
    assert hit == TitleHit(title="titles/t1", display_name="Solaris", release_year=1972, score=hit.score)
    assert 0.5 < hit.score < 1
    assert await names(ann, "solaris") == ["Solaris", "Solaris"]
    assert await names(await world.search("users/root", "operator"), "solaris") == ["Solaris", "Solaris"]


async def test_hits_are_paged_and_forged_tokens_refused(world: World) -> None:
    service, bob = await world.search(None), await world.search("users/bob")
    await service.IndexTitles(
        pb.IndexTitlesRequest(documents=[document(n, f"Rocky {n}") for n in range(1, 8)])
    )
    seen: list[str] = []
    token = ""
    while True:
        page = await bob.SearchTitles(pb.SearchTitlesRequest(query="rocky", page_size=3, page_token=token))
        seen += [hit.display_name for hit in page.hits]
        if not page.next_page_token:
            break
        token = page.next_page_token
    assert sorted(seen) == [f"Rocky {n}" for n in range(1, 8)]
    for query, forged in (("rambo", token), ("rocky", token[:-3] + "AAA"), ("rocky", "x"), ("rocky", "🎬")):
        request = pb.SearchTitlesRequest(query=query, page_size=3, page_token=forged)
        assert (await refused(bob.SearchTitles(request)))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("query", ["", "x" * 10_240, "x" * 201])
async def test_queries_outside_the_contract_are_refused(world: World, query: str) -> None:
    bob = await world.search("users/bob")
    request = pb.SearchTitlesRequest(query=query)
    assert await refused(bob.SearchTitles(request)) == ("INVALID_ARGUMENT", "VALIDATION_FAILED")


async def test_indexing_is_for_services_and_rebuilding_for_operators(world: World) -> None:
    publisher = await world.search("users/ann", "publisher")
    indexing = publisher.IndexTitles(pb.IndexTitlesRequest(documents=[document(1, "x")]))
    assert await refused(indexing) == ("PERMISSION_DENIED", "SERVICE_ONLY")
    assert await refused(publisher.RebuildIndex(pb.RebuildIndexRequest())) == (
        "PERMISSION_DENIED",
        "ROLE_MISSING",
    )
    too_many = pb.IndexTitlesRequest(documents=[document(n, "x") for n in range(501)])
    assert (await refused((await world.search(None)).IndexTitles(too_many)))[0] == "INVALID_ARGUMENT"


async def create(world: World, *display_names: str) -> None:
    stub: Any = catalog_pb2_grpc.CatalogServiceStub(await world.channel("users/ann", "publisher"))
    for name in display_names:
        title = Title(display_name=name)
        await stub.CreateTitle(catalog_pb2.CreateTitleRequest(title=title, request_id=str(uuid.uuid4())))


async def test_a_created_title_is_found_by_its_owner_within_seconds(world: World) -> None:
    await create(world, "Солярис")
    await until(await world.search("users/ann"), "салярис", ["Солярис"])
    assert await names(await world.search("users/bob"), "солярис") == []


async def test_an_episode_is_found_by_its_series_too(world: World) -> None:
    episode = document(1, "Pilot")
    episode.series_display_name = "Nights at Sea"
    await (await world.search(None)).IndexTitles(pb.IndexTitlesRequest(documents=[episode]))
    bob = await world.search("users/bob")
    for query in ("nights at see", "pilot"):
        assert await names(bob, query) == ["Nights at Sea: Pilot"]


async def test_a_rebuilt_index_gives_the_same_answers(world: World) -> None:
    films = [f"Rocky {number}" for number in range(205)]
    await create(world, *films, "Solaris")
    operator = await world.search("users/root", "operator")
    await until(operator, "solaris", ["Solaris"])
    before = (await operator.SearchTitles(pb.SearchTitlesRequest(query="rocky 17", page_size=50))).hits
    service = await world.search(None)
    await service.IndexTitles(pb.IndexTitlesRequest(documents=[document(1, "Not in the catalog")]))
    counts = await asyncio.gather(*(operator.RebuildIndex(pb.RebuildIndexRequest()) for _ in range(3)))
    assert [answer.title_count for answer in counts] == [206] * 3
    after = (await operator.SearchTitles(pb.SearchTitlesRequest(query="rocky 17", page_size=50))).hits
    assert (len(after), after) == (50, before)
    assert await names(operator, "not in the catalog") == []


async def test_a_lost_index_comes_back_by_itself(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(
            serving(tmp_path, catalog=build_catalog, search=build_search)
        )
        world = World(process, stack)
        await create(world, "Solaris")
        await until(await world.search("users/ann"), "solaris", ["Solaris"])
    for file in (tmp_path / "sql").glob("search.db*"):
        file.unlink()
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(
            serving(tmp_path, catalog=build_catalog, search=build_search)
        )
        await until(await World(process, stack).search("users/ann"), "solaris", ["Solaris"])
