"""A whole suite as a child process, for the demo, benchmarks and tests: its own folder, a free port."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from services.runtime.errors import FailedPrecondition

_READY_WITHIN_S = 60.0
_STOPPED_WITHIN_S = 30.0


class SuiteDidNotStart(FailedPrecondition):
    """Kino did not start: {problem}"""

    reason = "SUITE_DID_NOT_START"


@dataclass(frozen=True, kw_only=True)
class SuiteProcess:
    """A running `kino up`."""

    url: str
    data_dir: Path
    #: Makes the first operator; None once it was used.
    claim_token: str | None
    process: subprocess.Popen[bytes] = field(repr=False)

    def tree(self) -> list[psutil.Process]:
        """The process and all it started, as far as they run."""
        return process_tree(self.process.pid)

    def stop(self) -> int:
        """Stop it as Ctrl-C does, with force after half a minute; its exit code."""
        children = self.tree()
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            for child in children:
                if child.is_running():
                    child.kill()
            return self.process.wait()


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and all it started, as far as they run."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def start_suite(
    data_dir: Path, *, port: int = 0, workers: int = 2, env: Mapping[str, str] | None = None
) -> SuiteProcess:
    """Start `kino up` on `data_dir` and wait until it can be used. Raises `SuiteDidNotStart`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    process = launch_suite(data_dir, port=port, workers=workers, env=env)
    try:
        said = _first_line(process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if "url" not in said:
        process.wait()
        raise SuiteDidNotStart(said.get("error", {}).get("message") or _end_of_log(data_dir))
    return SuiteProcess(url=said["url"], data_dir=data_dir, claim_token=said["claim_token"], process=process)


def launch_suite(
    data_dir: Path, *, port: int, workers: int, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `kino up --json` without waiting; it says one JSON object once it is ready, or what is wrong."""
    # The user's own settings are not the ones of this suite.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KINO_")}
    # Tied to us, so that nothing stays behind however we end.
    argv = [sys.executable, "-m", "cli.tether", "0", sys.executable, "-m", "cli.main", "--json", "up"]
    argv += ["--data-dir", str(data_dir), "--port", str(port), "--workers", str(workers)]
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log:
        return subprocess.Popen(
            argv,
            # Away from any kino.toml of the working folder.
            cwd=data_dir.parent,
            env={**clean, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


@contextmanager
def running_suite(
    data_dir: Path, *, port: int = 0, workers: int = 2, env: Mapping[str, str] | None = None
) -> Iterator[SuiteProcess]:
    """A suite that is stopped at the end. Raises `SuiteDidNotStart`."""
    suite = start_suite(data_dir, port=port, workers=workers, env=env)
    try:
        yield suite
    finally:
        suite.stop()


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(_READY_WITHIN_S):
            raise SuiteDidNotStart(f"it was not ready within {_READY_WITHIN_S:.0f} seconds.")
    said: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
    return said


def _end_of_log(data_dir: Path) -> str:
    log = data_dir.parent / f"{data_dir.name}.log"
    lines = log.read_text(errors="replace").splitlines()
    return " | ".join(lines[-5:]) or "it ended without a word."
