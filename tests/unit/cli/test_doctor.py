from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from cli.doctor import examine
from cli.findings import Finding
from services.runtime.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(folder: Path, port: int = 0) -> Settings:
    return Settings(data_dir=folder, gateway_port=port)


async def found(folder: Path, check: str, port: int = 0) -> Finding:
    return next(finding for finding in await examine(settings(folder, port)) if finding.check == check)


async def test_each_part_is_looked_at_once(tmp_path: Path) -> None:
    checks = [finding.check for finding in await examine(settings(tmp_path))]

    assert checks == ["data folder", "port", "ffmpeg", "sandbox", "gateway", "page", "clock"]


async def test_the_programs_that_kino_pins_are_found(tmp_path: Path) -> None:
    states = {finding.check: finding.state for finding in await examine(settings(tmp_path))}

    assert (states["ffmpeg"], states["gateway"]) == ("ok", "ok")


async def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        finding = await found(tmp_path, "port", port)

    assert finding.state == "wrong"
    assert f"127.0.0.1:{port}" in finding.sentence
    assert "KINO_GATEWAY_PORT" in finding.sentence


async def test_a_folder_that_is_a_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    finding = await found(file / "data", "data folder")

    assert finding.state == "wrong"
    assert "KINO_DATA_DIR" in finding.sentence


async def test_a_clock_behind_what_was_written_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    database = tmp_path / "sql" / "identity.db"
    database.write_text("")
    future = time.time() + 3600
    os.utime(database, (future, future))

    assert (await found(tmp_path, "clock")).state == "wrong"


async def test_a_running_kino_that_does_not_answer_is_found(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    state = {"pid": os.getpid(), "url": f"http://127.0.0.1:{free_port()}", "claim_token": None}
    (tmp_path / "run" / "up.json").write_text(json.dumps(state))

    findings = {finding.check: finding.state for finding in await examine(settings(tmp_path))}

    assert (findings["running"], findings["services"]) == ("wrong", "wrong")
    assert not [check for check in findings if check.endswith(" service")]


async def test_what_a_kino_that_was_killed_left_behind_is_not_taken_for_a_running_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    state = {"pid": 2**22 + 1, "url": "http://127.0.0.1:1", "claim_token": None}
    (tmp_path / "run" / "up.json").write_text(json.dumps(state))

    assert "running" not in {finding.check for finding in await examine(settings(tmp_path))}
