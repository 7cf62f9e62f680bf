"""What every engine's module stands on: the cache outside the tree, free ports, processes tied to us."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.05
#: A child ends with the thread that started it (PR_SET_PDEATHSIG, prctl(2)), so that this one starts all.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="spawner")


class EngineFailed(RuntimeError):
    """An engine did not install, start or stop."""


def cache_folder(*parts: str) -> Path:
    """A folder for downloads and builds that outlives the checkout: `KINO_CACHE`, else `~/.cache/kino`."""
    base = os.environ.get("KINO_CACHE") or Path.home() / ".cache" / "kino"
    folder = Path(base).joinpath("engines", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def installing(folder: Path) -> Iterator[bool]:
    """Hold the folder for one process; True when its content has still to be made.

    Marked as made when the block ends without an error, so that an install that was cut off is done again.
    """
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / ".installed"
        missing = not done.exists()
        yield missing
        if missing:
            done.touch()


def free_port(address: str = "127.0.0.1") -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    """Return once `holds` does. Raises `EngineFailed` with `what` after `within_s`."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise EngineFailed(f"{what} not within {within_s:.0f} s")
        time.sleep(_POLL_S)


def answers(address: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((address, port), 0.5).close()
    except OSError:
        return False
    return True


class EngineProcess:
    """One process of an engine: started tied to us, so that nothing stays behind however we end."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        folder: Path,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """`folder` is the working folder and holds `<name>.log`; `env` is added to ours.

        `stop_signal` makes it end in order.
        """
        self.name = name
        self._stop_signal = stop_signal
        self._argv = [str(part) for part in argv]
        self._folder = folder
        self._env = dict(env or {})
        self.log_path = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id. Raises `EngineFailed` when it doesn't run."""
        if self._process is None or self._process.poll() is not None:
            raise EngineFailed(f"{self.name} does not run")
        return self._process.pid

    def start(self, ready: Callable[[], bool], within_s: float = 120.0) -> None:
        """Start, and return once `ready` answers True. Raises `EngineFailed` with the end of the log."""
        self.launch()
        self.wait(ready, within_s)

    def launch(self) -> None:
        """Start without waiting."""
        _SPAWNER.submit(self._spawn).result()

    def _spawn(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.tether", "0", *self._argv],
                cwd=self._folder,
                env={**os.environ, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, ready: Callable[[], bool], within_s: float = 120.0) -> None:
        """Return once `ready` answers True. Raises `EngineFailed` with the end of the log."""
        wait_until(lambda: self._ended() or ready(), within_s, f"{self.name} (see {self.log_path}) ready")
        if self._ended():
            raise EngineFailed(f"{self.name} ended at its start:\n{self._last_lines()}")

    def kill(self) -> None:
        """End it at once, as a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        self._wait(30)

    def stop(self, within_s: float = 60.0) -> None:
        """End it in order, if it runs; by force when it takes too long."""
        if self._process is None or self._ended():
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def _wait(self, within_s: float) -> None:
        assert self._process
        self._process.wait(within_s)

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _last_lines(self) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-20:])
