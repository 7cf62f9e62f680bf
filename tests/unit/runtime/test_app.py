from __future__ import annotations

import asyncio
import json
import multiprocessing
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

from services.runtime.app import Context, ServiceApp
from services.runtime.auth import principal
from services.runtime.call import request_id, set_deadline, set_request_id
from services.runtime.keys import Keys, open_keys
from services.runtime.testing import channel_of, serving, settings_in
from tests.unit.runtime.probe import SERVICE, Note, ProbeStub, probe

ROOT = Path(__file__).parents[3]


def part(name: str, log: list[str], **parts: Any) -> Any:
    async def build(ctx: Context) -> ServiceApp:
        log.append(f"build {name}")

        async def close() -> None:
            log.append(f"close {name}")

        return ServiceApp(name=name, grpc_services=[], register=lambda server: None, close=close, **parts)

    return build


async def test_services_close_in_the_reverse_order_of_their_building(tmp_path: Path) -> None:
    log: list[str] = []
    async with serving(tmp_path, one=part("one", log), two=part("two", log)):
        log.append("serving")
    assert log == ["build one", "build two", "serving", "close two", "close one"]


async def test_when_one_service_cannot_be_built_the_others_are_closed(tmp_path: Path) -> None:
    log: list[str] = []

    async def broken(ctx: Context) -> ServiceApp:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        async with serving(tmp_path, one=part("one", log), two=broken):
            log.append("serving")
    assert log == ["build one", "close one"]


async def test_background_work_starts_again_when_it_fails_and_ends_with_the_process(tmp_path: Path) -> None:
    runs: list[int] = []
    again, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("once")
        again.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path, one=part("one", [], background=[work])):
            await asyncio.wait_for(again.wait(), 10)
    assert ended.is_set()
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["background work failed"]


async def test_a_service_calls_another_as_itself_with_what_is_left_of_its_time(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def look(request: Any, context: Any) -> Any:
        seen.update(who=principal().subject, left=context.time_remaining(), request=request_id())
        return request

    async with serving(tmp_path, probe=probe(look)) as process:
        stub = ProbeStub(process.context.named("playback").channels.channel("probe"))
        await stub.Service(Note())
        assert seen["who"] == "services/playback"
        assert 5 < seen["left"] <= 10
        set_deadline(4)
        set_request_id("r-1")
        await stub.Service(Note(), timeout=9)
        assert 0 < seen["left"] < 5  # the header carries few digits, rounded up
        assert seen["request"] == "r-1"


async def test_a_stub_goes_to_the_endpoint_of_the_service_its_module_names(tmp_path: Path) -> None:
    class Stub(ProbeStub):
        __module__ = "kino.probe.v1.probe_pb2_grpc"

    keys = tmp_path / "keys"
    async with serving(tmp_path, settings=settings_in(tmp_path / "a", keys_dir=keys), probe=probe()) as owner:
        elsewhere = settings_in(tmp_path / "b", keys_dir=keys, endpoints={"probe": owner.address})
        async with serving(tmp_path, settings=elsewhere) as caller:
            assert await caller.context.channels.stub(Stub).Service(Note(text="a")) == Note(text="a")
            assert caller.context.channels.address("catalog") == caller.address


async def test_state_is_as_it_was_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, probe=probe()) as first:
        token = first.context.sealer.seal("lease", b"x", None)
        await first.context.objects.put("a", b"content")
    async with serving(tmp_path, probe=probe()) as second:
        assert second.context.sealer.open("lease", token) == b"x"
        assert await second.context.objects.get("a") == b"content"


async def test_a_client_of_the_test_kit_reaches_the_process(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=settings_in(tmp_path), probe=probe()) as process:
        async with channel_of(process) as channel:
            assert await ProbeStub(channel).Public(Note(text="a")) == Note(text="a")
        assert [app.grpc_services for app in process.apps] == [(SERVICE,)]


def test_keys_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys = open_keys(folder)
    assert open_keys(folder) == keys
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "internal.key": 0o600,
        "signing.pem": 0o600,
        "jwks.json": 0o644,
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert json.loads(keys.jwks_path.read_text()) == keys.jwks
    assert "PRIVATE" not in repr(keys)


def _open_keys(folder: Path) -> Keys:
    return open_keys(folder)


def test_processes_that_start_together_get_the_same_keys(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = pool.map(_open_keys, [tmp_path / "keys"] * 12)
    assert len({key.internal for key in keys}) == len({key.signing_pem for key in keys}) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
        "internal.key",
        "jwks.json",
        "signing.pem",
    ]


def test_a_damaged_key_is_not_used(tmp_path: Path) -> None:
    open_keys(tmp_path)
    (tmp_path / "internal.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="must hold 32 bytes"):
        open_keys(tmp_path)


def test_a_worker_loads_neither_sql_nor_a_server() -> None:
    code = (
        "import sys\n"
        "from services.runtime import auth, channels, clock, errors, ids, keys, objects_local, sealed\n"
        "from services.runtime import settings, status\n"
        "heavy = ('sqlalchemy', 'alembic', 'dbos', 'protovalidate', 'grpc_health.v1', 'structlog')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_logs_are_json_lines_with_tracebacks_but_no_variables() -> None:
    code = (
        "from services.runtime.logs import configure_logs, logger\n"
        "configure_logs(level='info', style='auto')\n"
        "log = logger('x')\n"
        "log.debug('hidden')\n"
        "try:\n    token = 'hunter' + str(2)\n    raise ValueError('bad')\n"
        "except ValueError as error:\n    log.error('failed', title='titles/x', exc_info=error)\n"
        "import logging; logging.getLogger('lib').warning('from a library')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    failed, library = [json.loads(line) for line in done.stderr.splitlines()]
    assert (failed["event"], failed["level"], failed["title"], failed["part"]) == (
        "failed",
        "error",
        "titles/x",
        "x",
    )
    assert "ValueError: bad" in failed["exception"]
    assert "hunter2" not in done.stderr
    assert (library["event"], library["level"]) == ("from a library", "warning")
