from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.media.scratch import MIB, Scratch, ScratchFull


async def test_a_task_waits_until_there_is_room_and_folders_go_with_their_tasks(tmp_path: Path) -> None:
    scratch, order = Scratch(tmp_path, 10 * MIB), list[str]()
    inside, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with scratch.folder("encode", 6 * MIB) as folder:
            (folder / "file").write_bytes(b"x")
            inside.set()
            await leave.wait()
            order.append("first")

    async def second() -> None:
        await inside.wait()
        async with scratch.folder("encode", 6 * MIB):
            order.append("second")

    async def third() -> None:
        await inside.wait()
        async with scratch.folder("encode", 4 * MIB):
            order.append("third")
        leave.set()

    await asyncio.gather(first(), second(), third())
    assert order == ["third", "first", "second"]
    assert os.listdir(tmp_path) == []


async def test_a_task_that_never_fits_is_refused_for_another_worker(tmp_path: Path) -> None:
    with pytest.raises(ScratchFull, match="it may need 11 MiB, KINO_SCRATCH_BYTES allows 10"):
        async with Scratch(tmp_path, 10 * MIB).folder("encode", 11 * MIB):
            pass


async def test_a_full_disk_is_said_before_the_task_begins(tmp_path: Path) -> None:
    with pytest.raises(ScratchFull, match="MiB left"):
        async with Scratch(tmp_path, 1 << 62).folder("encode", 1 << 61):
            pass
    assert os.listdir(tmp_path) == []


async def test_a_cancelled_waiter_takes_no_room(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 10 * MIB)
    async with scratch.folder("encode", 10 * MIB):
        waiter = asyncio.ensure_future(scratch.folder("encode", 10 * MIB).__aenter__())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
    async with scratch.folder("encode", 10 * MIB):
        pass


def test_only_the_folders_of_ended_workers_are_collected(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone, own, other = (
        tmp_path / name
        for name in (f"kino-encode-{ended.pid}-abc", f"kino-encode-{os.getpid()}-abc", "kino-source-abc")
    )
    for folder in (gone, own, other):
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
    assert Scratch(tmp_path).collect_orphans() == [gone]
    assert sorted(tmp_path.iterdir()) == sorted([own, other])
