"""One fixture for each real engine: started at its first use, once per run, or a running one that is named.

A test that uses one carries the marker `engine`. An engine that can't be had fails the test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engines.elasticsearch import ElasticsearchServer


@pytest.fixture(scope="session")
def elasticsearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a node of Elasticsearch; a test names its own index."""
    if url := os.environ.get("KINO_TEST_ELASTICSEARCH_URL"):
        yield url
        return
    server = ElasticsearchServer(tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    yield server.url
    server.stop()
