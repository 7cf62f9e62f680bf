from __future__ import annotations

import asyncio
from itertools import pairwise

from services.playback.turns import Turns


async def _round() -> None:
    await asyncio.sleep(0)


async def test_a_few_go_at_once_and_the_others_in_the_rounds_that_follow() -> None:
    turns, went = Turns(2), list[int]()

    async def stream(number: int) -> None:
        await turns.take(new=False)
        went.append(number)

    tasks = [asyncio.create_task(stream(number)) for number in range(7)]
    await _round()
    assert went == [0, 1]
    counts = []
    while len(went) < len(tasks):
        await _round()
        counts.append(len(went))
    assert went == list(range(7))
    assert all(later - before <= 2 for before, later in pairwise(counts))


async def test_rounds_are_short_after_a_stream_has_come() -> None:
    turns, went = Turns(4), list[int]()

    async def stream(number: int) -> None:
        await turns.take(new=False)
        went.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(stream(number))
        await _round()
        assert len(went) == 4
        turns.arrived()
        for _ in range(6):
            before = len(went)
            await _round()
            assert len(went) <= before + (4 if before == 4 else 1)


async def test_new_streams_go_first() -> None:
    turns, went = Turns(1), list[str]()

    async def stream(name: str, *, new: bool) -> None:
        await turns.take(new=new)
        went.append(name)

    async with asyncio.TaskGroup() as group:
        for name in ("first", "old", "older"):
            group.create_task(stream(name, new=False))
        group.create_task(stream("new", new=True))
    assert went == ["first", "new", "old", "older"]


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    turns, went = Turns(1), list[int]()

    async def stream(number: int) -> None:
        await turns.take(new=False)
        went.append(number)

    tasks = [asyncio.create_task(stream(number)) for number in range(3)]
    await _round()
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert went == [0, 2]
    await turns.take(new=False)


async def test_nothing_runs_while_nobody_asks() -> None:
    turns = Turns(1)
    await turns.take(new=False)
    for _ in range(4):
        await _round()
    assert not turns._counting
