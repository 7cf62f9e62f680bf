"""The only way a file from outside is opened: in a child with no network, no files and hard limits.

The source goes in as one inherited descriptor and nothing else does. What the machine can enforce is tried by
`capabilities()`; when neither a network namespace nor a system call filter can be had, nothing is opened.
FFmpeg's own whitelists (`INPUT_FLAGS`) come on top: they were bypassed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import marshal
import os
import re
import shlex
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg

from services.media import child
from services.media.containers import FORMATS
from services.media.errors import (
    EncoderFailed,
    EncoderStalled,
    MediaError,
    SandboxKilled,
    SandboxLimit,
    SandboxUnavailable,
)

#: Flags that go before FFmpeg's `-i`.


def input_flags(formats: Sequence[str]) -> tuple[str, ...]:
    """What makes FFmpeg read the source and nothing else, as one of these formats."""
    return (
        # Only the descriptor given, so that nothing inside the file can name another.
        *("-protocol_whitelist", "fd,pipe"),
        # No playlists: a playlist renamed .mp4 would read other people's files.
        *("-format_whitelist", ",".join(formats)),
        *("-fd", str(child.SOURCE_FD)),
        *("-i", "fd:"),
    )


INPUT_FLAGS = input_flags(FORMATS)
#: What a dynamically linked program needs to start.
SYSTEM_PATHS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")
STDERR_LINES = 12
STDERR_BYTES = 2000
PIECE_BYTES = 1 << 16
#: FFmpeg ends in good order at the signal that its processor time is used up, and tells none from another.
FFMPEG_SIGNALLED = 255
#: What a program says that was refused memory: FFmpeg, Python, C++, the loader.
NO_MEMORY = ("Cannot allocate memory", "MemoryError", "bad_alloc", "failed to map segment")
#: How a program ends that was refused memory and did not look, where it had taken so much of what it may.
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)
NEARLY_ALL = 0.75
#: How often it is looked how much a child has taken.
LOOK_S = 0.1
PACKAGE_ROOT = Path(__file__).resolve().parents[2]

GIB = 1 << 30
_FRAME = re.compile(rb"frame=\s*(\d+)")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most a child may take; every field is enforced by the kernel or by the parent."""

    memory_bytes: int = 4 * GIB
    cpu_s: int = 3600
    #: The largest file it may write.
    file_bytes: int = 2 * GIB
    open_files: int = 64
    processes: int = 256
    wall_s: float = 3600
    #: The longest time without progress.
    stall_s: float = 60
    #: The most it may say on its standard output.
    output_bytes: int = 4 * GIB


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program to run shut in; a source, if any, is its descriptor 3."""

    argv: Sequence[str]
    source: Path | None = None
    #: The one folder it may write into.
    scratch: Path | None = None
    #: What it may read besides itself and the system's libraries.
    read: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)
    nice: int = 10

    def shell(self) -> str:
        """The command as one would type it, without this machine's folders."""
        words = [Path(self.argv[0]).name, *(word.replace(f"{PACKAGE_ROOT}/", "") for word in self.argv[1:])]
        return shlex.join(words) + (" 3<SOURCE" if self.source else "")


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What this machine can enforce on a child; the last two were tried, not assumed."""

    namespace: bool
    landlock_abi: int
    seccomp: bool
    network_refused: bool
    files_refused: bool

    @property
    def isolates_network(self) -> bool:
        """Whether a child really has no network."""
        return self.network_refused and (self.namespace or self.seccomp)

    def names(self) -> list[str]:
        """What holds, in words."""
        held = {
            "network namespace": self.namespace,
            "system call filter": self.seccomp,
            f"landlock {self.landlock_abi}": self.files_refused and self.landlock_abi > 0,
            "resource limits": True,
        }
        return [name for name, holds in held.items() if holds]


def ffmpeg() -> str:
    """The FFmpeg that Kino ships with."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _policy(command: Command, source_fd: int | None) -> str:
    read = [*SYSTEM_PATHS, command.argv[0] if command.argv else sys.executable, *map(str, command.read)]
    packed = marshal.dumps(
        {
            "parent": os.getpid(),
            "nice": command.nice,
            "limits": asdict(command.limits),
            "read": read,
            "write": [str(command.scratch)] if command.scratch else [],
            "source_fd": source_fd,
        }
    )
    return packed.hex()


def _environment() -> dict[str, str]:
    """Nothing of the server's environment: it holds secrets."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(PACKAGE_ROOT),
        "PYTHONHASHSEED": "0",
    }


async def _spawn(command: Command, source_fd: int | None) -> asyncio.subprocess.Process:
    policy = _policy(command, source_fd)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", child.__file__, policy, *command.argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=() if source_fd is None else (source_fd,),
        start_new_session=True,
        cwd=command.scratch or "/",
        env=_environment(),
    )


def _taken_bytes(pid: int) -> int:
    """The address space of a process. Raises `OSError` or `IndexError` when it is gone."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


async def capabilities() -> Capabilities:
    """Tries on a child what this machine can enforce."""
    # Landlock is shown by a file that is refused, so the interpreter itself stays readable.
    probe = Command(argv=(), read=[Path(sys.prefix), Path(sys.base_prefix)])
    process = await _spawn(probe, None)
    stdout, stderr = await process.communicate()
    if process.returncode:
        raise SandboxUnavailable(
            problem=stderr.decode(errors="replace")[-200:].strip() or "the child did not start"
        )
    held = json.loads(stdout)
    return Capabilities(
        namespace=bool(held["namespace"]),
        landlock_abi=held["landlock"],
        seccomp=bool(held["seccomp"]),
        network_refused=bool(held["network_refused"]),
        files_refused=bool(held["files_refused"]),
    )


class _Stderr:
    """The last lines of a child's standard error."""

    def __init__(self) -> None:
        self._tail: deque[bytes] = deque(maxlen=64)

    async def follow(self, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(4096):
            self._tail.append(piece)

    def text(self, scratch: Path | None) -> str:
        """Its end, without this machine's folders."""
        whole = b"".join(self._tail).decode(errors="replace")
        if scratch is not None:
            whole = whole.replace(f"{scratch}/", "")
        lines = [line for line in re.split(r"[\r\n]+", whole) if line.strip() and not line.startswith("Svt[")]
        return "\n".join(lines[-STDERR_LINES:])[-STDERR_BYTES:]


class Running:
    """A child at work; leaving its context ends it with everything it started."""

    def __init__(self, command: Command, feed: Callable[[bytes], bool]) -> None:
        self._command, self._feed = command, feed
        self._stderr = _Stderr()
        self._process: asyncio.subprocess.Process | None = None
        self._began = 0.0
        self._most_bytes = 0

    async def __aenter__(self) -> Running:
        source = self._command.source
        fd = None if source is None else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._began = asyncio.get_running_loop().time()
            self._process = await _spawn(self._command, fd)
        finally:
            if fd is not None:
                os.close(fd)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        # The group outlives its leader when a grandchild does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def finish(self) -> None:
        """Feeds the child's output on until it ends; raises the typed error of whatever stopped it."""
        process, limits = self._process, self._command.limits
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.ensure_future(self._stderr.follow(process.stderr))
        looks = asyncio.ensure_future(self._look(process.pid))
        try:
            async with asyncio.timeout(limits.wall_s):
                await self._follow(process.stdout)
                await errors
                code = await process.wait()
        except TimeoutError:
            raise SandboxLimit(limit=f"{limits.wall_s:g} s of time", stderr=self._said()) from None
        finally:
            errors.cancel()
            looks.cancel()
        if code:
            raise self._failure(code)

    def _said(self) -> str:
        return self._stderr.text(self._command.scratch)

    async def _follow(self, stdout: asyncio.StreamReader) -> None:
        clock = asyncio.get_running_loop()
        limits = self._command.limits
        seen_bytes, last_progress = 0, clock.time()
        while True:
            try:
                async with asyncio.timeout_at(last_progress + limits.stall_s):
                    piece = await stdout.read(PIECE_BYTES)
            except TimeoutError:
                raise EncoderStalled(stall_s=f"{limits.stall_s:g}", stderr=self._said()) from None
            if not piece:
                return
            seen_bytes += len(piece)
            if seen_bytes > limits.output_bytes:
                raise SandboxLimit(limit=f"{limits.output_bytes} bytes of output", stderr=self._said())
            if self._feed(piece):
                last_progress = clock.time()

    async def _look(self, pid: int) -> None:
        """Keeps in mind how much address space the child has taken: one that is gone tells no more."""
        with contextlib.suppress(OSError, IndexError):
            while True:
                self._most_bytes = max(self._most_bytes, _taken_bytes(pid))
                await asyncio.sleep(LOOK_S)

    def _may_have_used(self, cpu_s: int) -> bool:
        """Whether all cores together had the time for it."""
        passed_s = asyncio.get_running_loop().time() - self._began
        return passed_s * (os.cpu_count() or 1) >= cpu_s

    def _failure(self, code: int) -> Exception:
        said = self._said()
        limits = self._command.limits
        if code == child.REFUSED:
            return SandboxUnavailable(problem=said or "the child refused to start")
        used_up = code in (FFMPEG_SIGNALLED, -signal.SIGKILL) and self._may_have_used(limits.cpu_s)
        if code == -signal.SIGXCPU or used_up:
            return SandboxLimit(limit=f"{limits.cpu_s} s of processor time", stderr=said)
        if code == -signal.SIGXFSZ or "File too large" in said:
            return SandboxLimit(limit=f"{limits.file_bytes} bytes in one file", stderr=said)
        crowded = code in CRASHES and self._most_bytes >= NEARLY_ALL * limits.memory_bytes
        if crowded or any(words in said for words in NO_MEMORY):
            return SandboxLimit(limit=f"{limits.memory_bytes} bytes of memory", stderr=said)
        if code == -signal.SIGKILL:
            return SandboxKilled(stderr=said)
        return EncoderFailed(exit_code=code, stderr=said)


async def run(command: Command, feed: Callable[[bytes], bool]) -> None:
    """Runs `command` shut in, giving what it says to `feed`, which answers whether that was progress.

    Cancelling ends the child and all its descendants. Raises `SandboxUnavailable`, `SandboxLimit`,
    `EncoderStalled` or `EncoderFailed`, each with the child's last words and its command.
    """
    try:
        async with Running(command, feed) as running:
            await running.finish()
    except MediaError as error:
        error.details["command"] = command.shell()
        raise


async def output_of(command: Command) -> bytes:
    """Runs `command` shut in and returns all it said on its standard output; raises like `run`."""
    said = bytearray()

    def feed(piece: bytes) -> bool:
        said.extend(piece)
        return True

    await run(command, feed)
    return bytes(said)


async def ffmpeg_version() -> str:
    """The first line that FFmpeg says of itself."""
    said = await output_of(Command(argv=[ffmpeg(), "-hide_banner", "-version"]))
    return said.decode(errors="replace").partition(" Copyright")[0]


class FrameCounter:
    """Reads FFmpeg's `-progress` lines; only a rising frame number counts as progress."""

    def __init__(self, total: int, report: Callable[[float], None]) -> None:
        """`report` hears the share of `total` frames that is done."""
        self._total, self._report = total, report
        self._rest = b""
        self._frames = -1

    def feed(self, piece: bytes) -> bool:
        """Takes the next output; True when frames were finished by it."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        found = [int(match[1]) for line in lines if (match := _FRAME.match(line))]
        if not found or found[-1] <= self._frames:
            return False
        self._frames = found[-1]
        self._report(min(self._frames / self._total, 1.0))
        return True
