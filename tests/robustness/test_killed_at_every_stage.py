"""A worker, or the scheduler, killed once in every stage of one title, which comes out as if nothing was."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from kino.scheduler.v1 import resources_pb2 as jobs
from services.media.testfilm import FilmSpec, make_film
from tests.robustness.test_encoding_faults import Digests, Farm, farm

#: Long enough for trial encodes, of few and small pictures.
SPEC = FilmSpec(seconds=Fraction(121), fps=Fraction(6), width=256, height=144, cuts=(5.4, 11.2), loud=None)
_FAST = {"KINO_VIDEO_CODECS": '["h264"]', "KINO_ENCODE_QUALITY": "false"}
#: The tasks that are in a stage, in the order in which a title comes to them.
STAGES = {
    "probe": "kind = 'PROBE' AND state = 'RUNNING'",
    "trial": "kind = 'TRIAL' AND state = 'RUNNING'",
    "analyse": "kind = 'ANALYZE' AND state = 'RUNNING'",
    "encode": "kind = 'ENCODE_VIDEO' AND state = 'RUNNING'",
    # And something is just being written to the origin.
    "package": "kind LIKE 'ENCODE_%' AND state = 'RUNNING'",
    "publish": "state = 'PUBLISHING'",
}
_WITHIN_S = 300.0


def workers_in(stage: str, folder: Path) -> set[str]:
    """Who works in the stage, once anybody does."""
    query = f"SELECT DISTINCT worker FROM tasks WHERE {STAGES[stage]}"
    deadline = time.monotonic() + _WITHIN_S
    database = f"file:{folder}/scheduler/sql/scheduler.db?mode=ro"
    with closing(sqlite3.connect(database, uri=True, isolation_level=None)) as connection:
        while time.monotonic() < deadline:
            writes = stage != "package" or any((folder / "objects" / ".tmp").glob("*/*"))
            if writes and (found := {worker for (worker,) in connection.execute(query)}):
                return found
            time.sleep(0.001)
    raise AssertionError(f"no task came to the stage {stage}")


async def run(folder: Path, film: Path, victim: str = "") -> tuple[Digests, int, int]:
    """What is published; attempts beyond the first of each task; how many processes were killed."""
    async with farm(folder, environment=_FAST) as f:
        title = await f.begin(film)
        killed = sum([await kill(f, victim, stage, folder) for stage in STAGES]) if victim else 0
        job = await f.end()
        assert job.state == jobs.Job.STATE_SUCCEEDED, job.error
        repeated = sum(len(task.attempts) - 1 for task in await f.tasks())
        published = await f.published(title)
    assert left_over(folder) == []
    return published, repeated, killed


def left_over(folder: Path) -> list[Path]:
    """Files of writes to the origin and of encodes that were cut off."""
    found = [*folder.glob("objects/.tmp/*/*"), *folder.glob("*/scratch/**/*")]
    return [path for path in found if path.is_file()]


async def kill(f: Farm, victim: str, stage: str, folder: Path) -> int:
    """Kill the workers that are in the stage, or the scheduler, and start them again; how many these are."""
    names = await asyncio.to_thread(workers_in, stage, folder)
    if victim == "scheduler":
        f.scheduler.kill()
        await f.start_scheduler()
        return 1
    # A preprocessor's id has more to it than its name.
    all_ = (*f.encoders, f.preprocessor)
    workers = [process for process in all_ if any(name.startswith(process.name) for name in names)]
    for process in workers:
        process.kill()
        process.launch()
    return len(workers)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, film: Path) -> Digests:
    return asyncio.run(run(tmp_path_factory.mktemp("undisturbed"), film))[0]


@pytest.mark.parametrize("victim", ["worker", "scheduler"])
async def test_killed_in_every_stage_the_title_completes_with_the_same_bytes(
    tmp_path: Path, film: Path, undisturbed: Digests, victim: str
) -> None:
    published, repeated, killed = await run(tmp_path, film, victim)
    assert published == undisturbed
    assert killed >= len(STAGES)
    # What a worker had in its one slot, or a task that a scheduler had noted as given and had not sent.
    assert repeated <= killed
