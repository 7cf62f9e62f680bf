"""One running suite for all acceptance tests, with a paying viewer and one complete film."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from cli.client import Kino
from cli.suite_process import running_suite
from services.media.testfilm import FilmSpec
from tests.engines.process import free_port
from tests.support.stack import People, Stack, film_file
from tests.support.worded import worded_film

TITLE = "The Clockmaker's Minute"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    film = FilmSpec()
    port = free_port()
    with running_suite(folder / "data", env={"KINO_GRPC_PORT": str(port)}) as suite:
        people = People(suite=suite, folder=folder)
        people.populate()
        title = people.ingest(film_file(folder / "film.mp4", film), TITLE)
        yield Stack(suite=suite, folder=folder, film=film, title=title, services=f"127.0.0.1:{port}")


@pytest.fixture(scope="session")
def worded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The title made of `worded_film`."""
    return stack.ingest(worded_film(tmp_path_factory.mktemp("worded")), "Said twice")


@pytest.fixture(scope="session")
def short_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = FilmSpec(seconds=Fraction(6), width=320, height=180, cuts=(3.1,), loud=None)
    return film_file(tmp_path_factory.mktemp("short") / "short.mp4", spec)


@pytest.fixture(scope="session")
def short_data(short_film: Path) -> bytes:
    return short_film.read_bytes()


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Kino]:
    async with stack.connect("operator") as kino:
        yield kino


@pytest.fixture
async def viewer(stack: Stack) -> AsyncIterator[Kino]:
    async with stack.connect("viewer") as kino:
        yield kino
