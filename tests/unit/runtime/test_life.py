from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime import life
from services.runtime.app import Context, Running, ServiceApp
from services.runtime.errors import FailedPrecondition, Unavailable
from services.runtime.life import Dependency
from services.runtime.testing import channel_of, serving

NAME, PART = "kino.probe.v1.ProbeService", "kino.probe.v1.ProbeService.Part"


class Engine:
    """An engine that a test turns off and on."""

    def __init__(self, *, there: bool) -> None:
        self.there = there
        self.opened = 0

    async def open(self) -> None:
        await self.check()
        self.opened += 1

    async def check(self) -> None:
        if not self.there:
            raise Unavailable()

    def dependency(self, *serves: str) -> Dependency:
        return Dependency(name="engine", serves=serves, open=self.open, check=self.check)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "_CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(life, "_MAX_OPEN_WAIT_S", 0.02)


def service(*dependencies: Dependency, **parts: Any) -> Any:
    async def build(_: Context) -> ServiceApp:
        return ServiceApp(
            name="probe", grpc_services=[], register=lambda _: None, dependencies=dependencies, **parts
        )

    return build


async def health_becomes(process: Running, name: str, serving: bool) -> None:
    wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    async with asyncio.timeout(10), channel_of(process) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name)):
            if answer.status == wanted:
                return


async def test_a_service_whose_engine_is_away_starts_and_works_once_it_is_there(tmp_path: Path) -> None:
    engine, worked = Engine(there=False), asyncio.Event()

    async def work() -> None:
        assert engine.opened
        worked.set()

    async with serving(tmp_path, probe=service(engine.dependency(NAME), background=[work])) as process:
        await health_becomes(process, NAME, False)
        await health_becomes(process, "", False)
        assert not worked.is_set()
        engine.there = True
        await health_becomes(process, NAME, True)
        await health_becomes(process, "", True)
        await asyncio.wait_for(worked.wait(), 10)


async def test_health_follows_an_engine_that_goes_and_comes_back(tmp_path: Path) -> None:
    engine = Engine(there=True)
    async with serving(tmp_path, probe=service(engine.dependency(NAME))) as process:
        await health_becomes(process, NAME, True)
        engine.there = False
        await health_becomes(process, NAME, False)
        engine.there = True
        await health_becomes(process, NAME, True)
        assert engine.opened == 1


async def test_only_what_stands_on_the_engine_is_not_served(tmp_path: Path) -> None:
    first, second = Engine(there=True), Engine(there=False)
    built = service(first.dependency(NAME), second.dependency(PART))
    async with serving(tmp_path, probe=built) as process:
        await health_becomes(process, NAME, True)
        await health_becomes(process, PART, False)


async def test_an_engine_that_refuses_for_good_ends_the_start(tmp_path: Path) -> None:
    async def refuse() -> None:
        raise FailedPrecondition("too new")

    with pytest.raises(FailedPrecondition):
        async with serving(tmp_path, probe=service(Dependency(name="engine", serves=[NAME], open=refuse))):
            pass


async def test_an_engine_that_first_was_away_and_then_refuses_is_asked_on(tmp_path: Path) -> None:
    answers: list[Exception | None] = [Unavailable(), FailedPrecondition("not yet"), None]

    async def open_() -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    async with serving(
        tmp_path, probe=service(Dependency(name="engine", serves=[NAME], open=open_))
    ) as process:
        await health_becomes(process, NAME, True)
    assert answers == []
