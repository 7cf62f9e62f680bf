"""Workers and the scheduler killed while a new source takes the place of a film that can be played."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import pytest

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.scheduler.v1 import resources_pb2 as jobs
from services.catalog.media_usecases import MediaCases
from services.catalog.model import Title
from services.catalog.store import Session
from services.media.testfilm import FilmSpec, make_film
from tests.robustness.test_encoding_faults import Farm, farm
from tests.robustness.test_killed_at_every_stage import kill, left_over

OLD = FilmSpec(seconds=Fraction(12), fps=Fraction(6), width=256, height=144, cuts=(5.4,), loud=None)
NEW = FilmSpec(seconds=Fraction(24), fps=Fraction(6), width=256, height=144, cuts=(7.4, 13.2), loud=None)
_FAST = {"KINO_VIDEO_CODECS": '["h264"]', "KINO_ENCODE_QUALITY": "false"}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("films")
    for name, spec in (("old", OLD), ("new", NEW)):
        asyncio.run(make_film(folder / f"{name}.mp4", spec))
    return folder / "old.mp4", folder / "new.mp4"


class Viewer:
    """Looks at a title again and again: what plays of it, and whether it is there to be read."""

    def __init__(self, f: Farm, title: str) -> None:
        self._farm, self._title = f, title
        #: The jobs whose media played, in the order in which they came.
        self.seen: list[str] = []

    async def watch(self, until: str) -> None:
        """Return once what plays is that job's."""
        while not self.seen or self.seen[-1] != until:
            await self._look()
            await asyncio.sleep(0.05)

    async def _look(self) -> None:
        shelf, objects = self._farm.catalog, self._farm.process.context.objects
        media = (await shelf.GetMedia(catalog.GetMediaRequest(title=self._title))).media
        assert media.state in (titles.Title.STATE_PLAYABLE, titles.Title.STATE_COMPLETE)
        if media.job not in self.seen[-1:]:
            self.seen.append(media.job)
        for rendition in media.renditions:
            request = catalog.ListSegmentsRequest(
                title=self._title, job=media.job, rendition_id=rendition.rendition_id, page_size=2000
            )
            for segment in (await shelf.ListSegments(request)).segments:
                assert (await objects.stat(segment.object_key)).sha256 == segment.sha256.hex()


def killed_at_the_switch(f: Farm, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have everybody killed when the catalog has made the switch, and hasn't answered yet; set once that is.

    The catalog is in this process, and commits after they are dead.
    """
    loop, done, save = asyncio.get_running_loop(), asyncio.Event(), MediaCases._save

    def switch(self: MediaCases, session: Session, old: Title, new: Title) -> None:
        save(self, session, old, new)
        if old.job != new.job == "jobs/two" and not done.is_set():
            for process in (f.scheduler, *f.encoders):
                process.kill()
            loop.call_soon_threadsafe(done.set)

    monkeypatch.setattr(MediaCases, "_save", switch)
    return done


async def test_killed_before_and_at_the_switch_the_old_film_plays_whole_until_it_and_then_the_new_one(
    tmp_path: Path, films: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = films
    async with farm(tmp_path, environment=_FAST) as f:
        title = await f.begin(old)
        assert (await f.end()).state == jobs.Job.STATE_SUCCEEDED
        before = await f.published(title, "jobs/one")
        # The new film by itself, to compare with.
        other = catalog.CreateTitleRequest(
            title=titles.Title(display_name="Two"), request_id="0190d9c0-0000-7000-8000-000000000002"
        )
        alone = (await f.catalog.CreateTitle(other)).title.name
        await f.encode(new, alone, "alone")
        assert (await f.end("jobs/alone")).state == jobs.Job.STATE_SUCCEEDED
        undisturbed = await f.published(alone, "jobs/alone")

        # As ingest says it before it has a replacement encoded.
        begun = catalog.BeginMediaRequest(title=title, job="jobs/two", replace=True)
        await f.catalog.BeginMedia(begun)
        switched, viewer = killed_at_the_switch(f, monkeypatch), Viewer(f, title)
        watching = asyncio.create_task(viewer.watch("jobs/two"))
        await f.encode(new, title, "two")
        await kill(f, "worker", "encode", tmp_path)
        await kill(f, "scheduler", "encode", tmp_path)
        await switched.wait()
        for encoder in f.encoders:
            encoder.launch()
        await f.start_scheduler()
        await watching
        job = await f.end("jobs/two")
        assert job.state == jobs.Job.STATE_SUCCEEDED, job.error

        assert viewer.seen == ["jobs/one", "jobs/two"]
        assert await f.published(title, "jobs/two") == undisturbed
        # For those who began with it.
        assert await f.published(title, "jobs/one") == before
    assert left_over(tmp_path) == []
