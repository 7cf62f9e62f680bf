from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.objects import ObjectDamaged, ObjectNotFound, ObjectStoreFailed, ObjectStoreFull
from services.runtime.objects_local import LocalObjects
from tests.contract.objects_contract import CONTENT, ObjectsContract

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalObjects]:
    made = LocalObjects(tmp_path / "objects")
    yield made
    await made.close()


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class TestLocalObjects(ObjectsContract):
    pass


WRITER = """
import asyncio, sys
from pathlib import Path
from services.runtime.objects_local import LocalObjects

async def main():
    store = LocalObjects(Path(sys.argv[1]))
    if sys.argv[2] == "writer":
        async with store.writer("victim") as writer:
            await writer.write(b"x" * 1_000_000)
            print("half", flush=True)
            await asyncio.Event().wait()
    rename = Path.rename
    def stop(self, target):
        if sys.argv[2] == "before" and str(target).endswith("@"):
            print("half", flush=True)
            import time; time.sleep(600)
        done = rename(self, target)
        if sys.argv[2] == "after" and str(target).endswith("@"):
            print("half", flush=True)
            import time; time.sleep(600)
        return done
    Path.rename = stop
    await store.put("victim", b"x" * 1_000_000)

asyncio.run(main())
"""


def kill_in_the_middle(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.kill()


@pytest.mark.parametrize(("moment", "visible"), [("writer", False), ("before", False), ("after", True)])
async def test_a_writer_killed_in_the_middle_leaves_all_or_nothing(
    moment: str, visible: bool, tmp_path: Path
) -> None:
    root = tmp_path / "objects"
    kill_in_the_middle([sys.executable, "-c", WRITER, str(root), moment])
    store = LocalObjects(root)
    assert store.swept == (0 if visible else 1)
    assert [entry.key async for entry in store.list()] == (["victim"] if visible else [])
    if visible:
        assert (await store.verify("victim")).size_bytes == 1_000_000
    assert len(files(root)) == visible + 1  # and this instance's lock
    await store.close()
    assert len(files(root)) == visible


async def test_opening_a_store_leaves_the_writes_of_living_processes_alone(store: LocalObjects) -> None:
    async with store.writer("a") as writer:
        await writer.write(CONTENT)
        other = LocalObjects(store._root)
        assert other.swept == 0
        await writer.commit()
        assert await other.get("a") == CONTENT
        await other.close()


async def test_two_processes_on_one_folder_agree_on_the_first_writer(store: LocalObjects) -> None:
    other = LocalObjects(store._root)
    await store.put("a", CONTENT)
    assert await other.put("a", CONTENT) == await store.stat("a")
    await other.close()


async def test_damage_is_found_when_asked_for(store: LocalObjects) -> None:
    await store.put("a", CONTENT)
    path = await store.local_path("a")
    path.chmod(0o600)
    path.write_bytes(CONTENT[:-1] + b"!")
    for read in (store.verify("a"), store.get("a"), anext(aiter(store.stream("a")))):
        with pytest.raises(ObjectDamaged):
            await read
    assert await store.get("a", checked=False) == CONTENT[:-1] + b"!"


async def test_a_file_cut_short_while_it_is_read_is_damage(store: LocalObjects) -> None:
    await store.put("a", CONTENT)
    path = await store.local_path("a")
    path.chmod(0o600)
    stream = aiter(store.stream("a", piece_bytes=1_000))
    await anext(stream)
    os.truncate(path, 1_000)
    with pytest.raises(ObjectDamaged):
        await anext(stream)


async def test_a_copy_of_the_folder_is_a_store_with_its_checksums(
    store: LocalObjects, tmp_path: Path
) -> None:
    info = await store.put("a/b", CONTENT)
    shutil.copytree(tmp_path / "objects", tmp_path / "copy", copy_function=shutil.copyfile)
    copy = LocalObjects(tmp_path / "copy")
    assert (await copy.verify("a/b")).sha256 == info.sha256
    await copy.close()


async def test_a_moved_file_is_not_copied(store: LocalObjects, tmp_path: Path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(CONTENT)
    inode = source.stat().st_ino
    await store.put("sources/u", source, move=True)
    path = await store.local_path("sources/u")
    assert path.stat().st_ino == inode


async def test_a_file_on_another_file_system_is_copied(
    store: LocalObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "far")

    monkeypatch.setattr("os.link", far)
    source = tmp_path / "upload"
    source.write_bytes(CONTENT)
    await store.put("sources/u", source, move=True)
    assert (await store.get("sources/u"), source.exists()) == (CONTENT, False)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_a_typed_error_that_leaves_nothing(
    code: int, store: LocalObjects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(handle: int) -> None:
        raise OSError(code, "full")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(ObjectStoreFull):
            await store.put("a", CONTENT)
    assert [name for name in files(tmp_path / "objects") if not name.endswith(".lock")] == []
    with pytest.raises(ObjectNotFound):
        await store.stat("a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_write_the_kernel_refuses_is_a_typed_error(
    store: LocalObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = store.begin()
    part.symlink_to("/dev/full")
    monkeypatch.setattr(store, "begin", lambda: part)
    with pytest.raises(ObjectStoreFull):
        await store.put("a", CONTENT)


async def test_other_failures_say_what_failed_but_not_where(store: LocalObjects, tmp_path: Path) -> None:
    with pytest.raises(
        ObjectStoreFailed, match="failed while it did put: No such file or directory"
    ) as caught:
        await store.put("a", tmp_path / "missing")
    assert str(tmp_path) not in str(caught.value)


async def test_objects_are_read_only_files(store: LocalObjects) -> None:
    await store.put("a", CONTENT)
    path = await store.local_path("a")
    assert path.stat().st_mode & 0o777 == 0o444
