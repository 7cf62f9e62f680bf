"""A film that is encoded once for all tests that play it."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.published import Film, encode_film
from tests.support.watching import CUTS, RUNGS, SPEC


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    return asyncio.run(encode_film(tmp_path_factory.mktemp("published"), SPEC, CUTS, RUNGS))
