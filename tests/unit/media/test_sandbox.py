from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.media import sandbox
from services.media.errors import EncoderFailed, EncoderStalled, SandboxKilled, SandboxLimit
from services.media.sandbox import Command, Limits

INTERPRETER = [Path(sys.prefix), Path(sys.base_prefix)]


def python(code: str, *, scratch: Path | None = None, source: Path | None = None, **limits: Any) -> Command:
    return Command(
        argv=[sys.executable, "-I", "-S", "-c", code],
        source=source,
        scratch=scratch,
        read=INTERPRETER,
        limits=replace(Limits(), **limits),
    )


async def said(code: str, **options: Any) -> str:
    return (await sandbox.output_of(python(code, **options))).decode()


async def test_this_machine_shuts_children_in() -> None:
    held = await sandbox.capabilities()
    assert held.isolates_network
    assert held.names()[-1] == "resource limits"


async def test_a_child_reads_its_source_and_nothing_else(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_bytes(b"film")
    other.write_bytes(b"secret")
    assert await said("import os;print(os.read(3, 99))", source=source) == "b'film'\n"
    if (await sandbox.capabilities()).files_refused:
        with pytest.raises(EncoderFailed) as caught:
            await said(f"open({str(other)!r})", source=source)
        assert "PermissionError" in str(caught.value.details["stderr"])


async def test_a_child_has_no_network() -> None:
    code = (
        "import socket\n"
        "try:\n"
        " s=socket.socket(); s.settimeout(1); s.connect(('127.0.0.1', 9))\n"
        "except ConnectionRefusedError: print('reached the machine')\n"
        "except OSError: print('refused')\n"
    )
    assert await said(code) == "refused\n"


async def test_a_child_knows_nothing_of_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINO_SECRET", "hunter2")
    assert "hunter2" not in await said("import os;print(dict(os.environ))")


async def test_a_child_writes_only_into_its_scratch_folder(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    await said("open('here','w').write('x')", scratch=mine)
    assert (mine / "here").read_text() == "x"
    if (await sandbox.capabilities()).files_refused:
        with pytest.raises(EncoderFailed):
            await said(f"open({str(tmp_path / 'there')!r},'w')", scratch=mine)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("code", "limits", "word"),
    [
        ("x=bytearray(1<<30)", {"memory_bytes": 1 << 28}, "memory"),
        # As a library ends that doesn't look whether it got any.
        (
            "import os,time;x=bytearray(220<<20);time.sleep(0.5);os.abort()",
            {"memory_bytes": 1 << 28},
            "memory",
        ),
        ("while True: pass", {"cpu_s": 1}, "processor"),
        ("open('big','wb').write(bytes(1<<20))", {"file_bytes": 1 << 16}, "in one file"),
        ("print('x'*100_000)", {"output_bytes": 1000}, "output"),
        ("import time;print(1,flush=True);time.sleep(60)", {"wall_s": 0.5}, "time"),
    ],
)
async def test_what_a_child_may_take_is_limited(
    tmp_path: Path, code: str, limits: dict[str, float], word: str
) -> None:
    with pytest.raises(SandboxLimit) as caught:
        await said(code, scratch=tmp_path, **limits)
    assert word in str(caught.value.details["limit"])


async def test_a_crash_that_lacked_no_memory_is_no_limit() -> None:
    with pytest.raises(EncoderFailed):
        await said("import os,time;time.sleep(0.5);os.abort()")


async def test_a_child_killed_from_outside_is_told_from_one_that_failed() -> None:
    def feed(piece: bytes) -> bool:
        os.kill(int(piece), signal.SIGKILL)
        return True

    code = "import os,time;print(os.getpid(),flush=True);time.sleep(60)"
    with pytest.raises(SandboxKilled, match="fewer slots"):
        await sandbox.run(python(code), feed)


async def test_a_child_without_progress_is_ended() -> None:
    with pytest.raises(EncoderStalled):
        await said("import time;time.sleep(60)", stall_s=0.3)


async def test_cancelling_ends_a_child_and_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess,sys,os\n"
        "p=subprocess.Popen([sys.executable,'-I','-S','-c','import time;time.sleep(60)'])\n"
        "print(os.getpid(), p.pid, flush=True)\n"
        "p.wait()\n"
    )
    started: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def feed(piece: bytes) -> bool:
        started.set_result([int(word) for word in piece.split()])
        return True

    work = asyncio.create_task(sandbox.run(python(code), feed))
    pids = await started
    work.cancel()
    await asyncio.wait([work])
    assert work.cancelled()
    for pid in pids:
        await asyncio.to_thread(wait_until_dead, pid)


async def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    code = (
        "import asyncio,sys,pathlib\n"
        "from services.media import sandbox\n"
        "argv=[sys.executable,'-I','-S','-c','import os,time;print(os.getpid(),flush=True);time.sleep(60)']\n"
        "read=[pathlib.Path(sys.prefix),pathlib.Path(sys.base_prefix)]\n"
        "def feed(piece):\n"
        "    print(piece.decode(), flush=True)\n"
        "    return True\n"
        "asyncio.run(sandbox.run(sandbox.Command(argv=argv, read=read), feed))\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=sandbox.PACKAGE_ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(wait_until_dead, pid)


def wait_until_dead(pid: int) -> None:
    # The system reaps a killed child's child soon after.
    while alive(pid):
        os.sched_yield()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_a_failure_carries_the_last_lines_and_the_command_without_folders(tmp_path: Path) -> None:
    code = f"import sys;sys.stderr.write('x'*9000+chr(10)+'the end in {tmp_path}/file');sys.exit(3)"
    with pytest.raises(EncoderFailed) as caught:
        await said(code, scratch=tmp_path)
    assert caught.value.details["exit_code"] == 3
    assert str(caught.value.details["stderr"]).endswith("\nthe end in file")
    assert len(str(caught.value.details["stderr"])) <= sandbox.STDERR_BYTES
    assert str(caught.value.details["command"]).startswith(Path(sys.executable).name)


async def test_ffmpeg_is_refused_any_protocol_but_the_descriptor(tmp_path: Path) -> None:
    playlist = tmp_path / "film.mp4"
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"x")
    playlist.write_text(f"#EXTM3U\n#EXTINF:10,\n{secret}\n")
    argv = [sandbox.ffmpeg(), "-hide_banner", "-loglevel", "error", *sandbox.INPUT_FLAGS, "-f", "null", "-"]
    with pytest.raises(EncoderFailed) as caught:
        await sandbox.output_of(Command(argv=argv, source=playlist))
    assert "secret" not in str(caught.value.details["stderr"])


def test_only_a_rising_frame_number_is_progress() -> None:
    heard: list[float] = []
    counter = sandbox.FrameCounter(10, heard.append)
    pieces = [b"frame=0\nfps=1\n", b"frame=", b"5\nprogress=continue\n", b"frame=5\n", b"frame=12\n"]
    assert [counter.feed(piece) for piece in pieces] == [True, False, True, False, True]
    assert heard == [0.0, 0.5, 1.0]
