"""Indexes on Elasticsearch that last for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.runtime.ids import new_id
from services.search.store_elastic import ElasticIndex
from tests.engines.elasticsearch import drop_indexes


@asynccontextmanager
async def elastic_index(
    url: str, *, alias: str = "", urls: Sequence[str] = ()
) -> AsyncIterator[ElasticIndex]:
    """An index of a name nobody has, not yet prepared, on the node at `url`; used by `urls` where given."""
    alias = alias or f"kino-test-{new_id()}"
    index = ElasticIndex(urls or [url], alias)
    try:
        yield index
    finally:
        await index.close()
        drop_indexes(url, alias)
