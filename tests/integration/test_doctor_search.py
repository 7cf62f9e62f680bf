from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from cli.doctor_search import examine_search
from services.runtime.ids import new_id
from services.runtime.settings import Settings
from services.search.model import Document
from tests.engines.elasticsearch import request
from tests.engines.process import free_port
from tests.support.elastic import elastic_index

pytestmark = pytest.mark.engine


async def look(folder: Path, *urls: str, **fields: Any) -> tuple[str, str]:
    """State and sentence of the one finding."""
    settings = Settings(
        data_dir=folder, search_store="elasticsearch", elasticsearch_urls=list(urls), **fields
    )
    (finding,) = await examine_search(settings)
    return finding.state, finding.sentence


async def test_an_embedded_index_needs_no_look(tmp_path: Path) -> None:
    assert await examine_search(Settings(data_dir=tmp_path)) == []


async def test_an_engine_that_is_away_or_not_named_is_told(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    state, sentence = await look(tmp_path, url)
    assert (state, url in sentence) == ("wrong", True)
    state, sentence = await look(tmp_path)
    assert (state, "KINO_ELASTICSEARCH_URLS" in sentence) == ("wrong", True)


async def test_an_index_is_told_from_its_absence_to_its_wholeness(tmp_path: Path, elasticsearch: str) -> None:
    alias = f"kino-test-{new_id()}"
    assert "no search index yet" in (await look(tmp_path, elasticsearch, elasticsearch_index=alias))[1]
    async with elastic_index(elasticsearch, alias=alias) as index:
        await index.prepare()
        assert "not whole" in (await look(tmp_path, elasticsearch, elasticsearch_index=alias))[1]
        generation = await index.begin()
        await index.fill(generation, [Document(title="titles/1", version=1, display_name="Solaris")])
        await index.finish(generation)
        state, sentence = await look(tmp_path, elasticsearch, elasticsearch_index=alias)
        assert (state, "1 titles" in sentence) == ("ok", True)


async def test_an_index_of_others_is_told(tmp_path: Path, elasticsearch: str) -> None:
    alias = f"kino-test-{new_id()}"
    request(elasticsearch, f"/{alias}", "PUT")
    state, sentence = await look(tmp_path, elasticsearch, elasticsearch_index=alias)
    request(elasticsearch, f"/{alias}", "DELETE")
    assert (state, "KINO_ELASTICSEARCH_INDEX" in sentence) == ("wrong", True)


async def test_a_clock_that_is_off_is_told(
    tmp_path: Path, elasticsearch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr("services.search.store_elastic.time.time", lambda: now() + 60)
    state, sentence = await look(tmp_path, elasticsearch, elasticsearch_index=f"kino-test-{new_id()}")
    assert (state, "60 s behind ours" in sentence) == ("wrong", True)
