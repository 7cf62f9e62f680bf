from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from services.media.scratch import MIB, Scratch, ScratchFull
from services.preprocessor.artwork import of_picture
from services.runtime.claims import Claimed, claim, claimed, temporary


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


async def test_a_folder_that_is_not_there_is_said_like_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ScratchFull, match=r"no can't be written \(No such file or directory\)"):
        async with Scratch(tmp_path / "no").folder("encode", 0):
            pass


async def test_a_cancelled_waiter_takes_no_room(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 10 * MIB)
    async with scratch.folder("encode", 10 * MIB):
        waiter = asyncio.ensure_future(scratch.folder("encode", 10 * MIB).__aenter__())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
    async with scratch.folder("encode", 10 * MIB):
        pass


#: A worker at work on a task in the folder that is its argument.
WORKER = """
import asyncio, sys
from pathlib import Path
from services.media.scratch import MIB, TASK, Scratch

async def work():
    TASK.set("jobs/j/tasks/t")
    async with Scratch(Path(sys.argv[1]), 10 * MIB, "encoder-1").folder("encode", MIB) as folder:
        (folder / "file").write_bytes(b"x")
        print(folder, flush=True)
        await asyncio.sleep(600)

asyncio.run(work())
"""


def test_only_the_folders_of_ended_workers_are_collected(tmp_path: Path) -> None:
    (tmp_path / "kino-of-somebody-else").mkdir()
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    with worker, worker.stdout:
        folder = Path(worker.stdout.readline().strip())
        try:
            # Told by the lock and by nothing else: that its process is seen from here is not needed.
            assert Scratch(tmp_path).collect_orphans() == []
            note = {"worker": "encoder-1", "task": "jobs/j/tasks/t"}
            assert claimed(tmp_path) == [Claimed(path=folder, alive=True, note=note)]
        finally:
            worker.kill()
    assert claimed(tmp_path) == [Claimed(path=folder, alive=False, note=note)]
    assert Scratch(tmp_path).collect_orphans() == [folder]
    assert os.listdir(tmp_path) == ["kino-of-somebody-else"]


async def test_a_full_disk_is_first_rid_of_orphans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = claim(tmp_path, "kino-encode-")
    os.close(orphan.handle)
    free = shutil.disk_usage(tmp_path)

    def used(path: Path) -> object:
        return free._replace(free=0 if orphan.path.exists() else free.total)

    monkeypatch.setattr(shutil, "disk_usage", used)
    async with Scratch(tmp_path).folder("encode", 1):
        assert not orphan.path.exists()


def test_what_a_command_left_in_the_temporary_folder_goes_with_its_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    orphan = claim(tmp_path, "kino-demo-")
    os.close(orphan.handle)
    with temporary("demo") as folder, temporary("demo") as other:
        assert {path for path in tmp_path.iterdir() if path.is_dir()} == {folder, other}
    assert os.listdir(tmp_path) == []


async def test_artwork_counts_like_a_task(tmp_path: Path) -> None:
    with pytest.raises(ScratchFull, match="it may need 16 MiB, KINO_SCRATCH_BYTES allows 10"):
        await of_picture(b"\xff\xd8\xff", Scratch(tmp_path, 10 * MIB))
