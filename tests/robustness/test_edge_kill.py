"""An edge that is killed while it writes: the next one serves only what is whole, within its budget."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from pathlib import Path

import pytest

from services.playback.disk import Edge, item_of
from services.playback.folder import Folder
from services.runtime.clock import ManualClock
from services.runtime.objects_local import LocalObjects

SIZE, COUNT, BUDGET = 300_000, 60, 20 * 300_000
#: Keeps on displacing, with what it is told on the command line: the origin and the folder.
WRITER = f"""
import asyncio, hashlib, itertools, sys
from pathlib import Path
from services.playback.disk import Edge
from services.playback.folder import Folder
from services.runtime.clock import SystemClock
from services.runtime.objects_local import LocalObjects

async def main():
    origin = LocalObjects(Path(sys.argv[1]))
    edge = Edge(origin, Folder(Path(sys.argv[2])), {BUDGET}, SystemClock())
    for number in itertools.count():
        key = f"media/{{number % {COUNT}}}/job/h264-360/0-1.m4s"
        for _ in range(number + 1):
            edge.asked(key)
        await edge.read(key, hashlib.sha256(await origin.get(key)).digest())
        if number % 7 == 0:
            await edge.save()
        print(number, flush=True)

asyncio.run(main())
"""


def key(number: int) -> str:
    return f"media/{number}/job/h264-360/0-1.m4s"


def content(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (SIZE // 32)


@pytest.mark.parametrize("after", [1, 9, 30])
async def test_a_killed_edge_leaves_nothing_that_is_served_wrong(tmp_path: Path, after: int) -> None:
    origin = LocalObjects(tmp_path / "origin")
    for number in range(COUNT):
        await origin.put(key(number), content(number))
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, str(tmp_path / "origin"), str(tmp_path / "edge")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert writer.stdout is not None
    while int(await writer.stdout.readline()) < after:
        pass
    writer.send_signal(signal.SIGKILL)
    await writer.wait()

    (tmp_path / "edge" / "a-users-file.mp4").write_bytes(b"mine")
    edge = Edge(origin, Folder(tmp_path / "edge"), BUDGET, ManualClock())
    kept = {file.item for file in edge.files()}
    names = {file.name for file in (tmp_path / "edge").iterdir()}
    assert not any(name.endswith(".part") for name in names)
    assert "a-users-file.mp4" in names
    assert 0 < len(kept) <= min(after + 2, BUDGET // SIZE)
    for number in sorted(range(COUNT), key=lambda number: item_of(key(number)) not in kept):
        digest = hashlib.sha256(content(number)).digest()
        assert await edge.read(key(number), digest) == content(number)
    assert edge.disk_bytes == len(kept) * len(content(0))
    assert edge.kept_bytes <= BUDGET
    await origin.close()
