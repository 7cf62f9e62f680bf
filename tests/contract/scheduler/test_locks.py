"""The lock of an executor, as PostgreSQL keeps it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE

import pytest
from sqlalchemy.engine import make_url

from services.scheduler import locks
from services.scheduler.locks import PostgresLocks
from tests.engines.postgres import Postgres

pytestmark = pytest.mark.engine

_HOLDER = """
import asyncio, sys
from sqlalchemy.engine import make_url
from services.scheduler.locks import PostgresLocks

async def main() -> None:
    lock = await PostgresLocks(make_url(sys.argv[1])).attempt("s3")
    assert lock
    print("held", flush=True)
    await lock.lost.wait()
    print("lost", flush=True)

asyncio.run(main())
"""


async def test_an_executor_that_stands_still_loses_its_lock_and_learns_it_when_it_goes_on(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "FROZEN_S", 3)
    database = postgres.new_database()
    url = postgres.url(database)
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, url, stdout=PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert holder.stdout
    try:
        assert (await holder.stdout.readline()).split()[-1:] == [b"held"]
        mine = PostgresLocks(make_url(url))
        assert await mine.attempt("s3") is None
        holder.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(60):
            while (lock := await mine.attempt("s3")) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        holder.send_signal(signal.SIGCONT)
        while b"lost" not in (await holder.stdout.readline()):
            assert not holder.stdout.at_eof()
        await lock.release()
    finally:
        if holder.returncode is None:
            holder.kill()
        await holder.wait()
        postgres.drop_database(database)
