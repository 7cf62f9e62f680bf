from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from cli.demo import Demo
from cli.output import Mute
from services.runtime.status import error_of
from tests.support.stack import Stack, run_kino

STEPS = [
    "start",
    "accounts",
    "plan",
    "film",
    "ingest",
    "search",
    "subscription",
    "play 0:33.4 h264",
    "play 0:33.4 av1",
    "stop and resume",
    "history",
    "invoice",
]


def test_the_demo_holds_by_itself_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run_kino("--json", "demo", env={"TMPDIR": str(tmp_path)})

    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] is True
    assert [step["step"] for step in said["steps"]] == STEPS
    assert list(tmp_path.iterdir()) == []
    assert [process for process in psutil.process_iter() if str(tmp_path) in command_line(process)] == []


async def test_the_demo_stops_at_the_first_thing_that_is_wrong(stack: Stack, tmp_path: Path) -> None:
    import grpc.aio

    demo = Demo(url=stack.gateway, claim_token="0" * 32, folder=tmp_path, output=Mute())

    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await demo.run()

    assert error_of(failed.value).code.name in ("PERMISSION_DENIED", "FAILED_PRECONDITION", "UNAUTHENTICATED")
    assert [(step.name, step.result) for step in demo.steps] == [("accounts", "failed")]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
