from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import methodcaller

import pytest
from sqlalchemy import inspect

from services.catalog.model import (
    Details,
    InitSegment,
    Kind,
    Media,
    Rendition,
    Segment,
    Sweep,
    Title,
    Viewer,
)
from services.catalog.store import Session
from services.catalog.store_sql import SqlStore
from services.catalog.tables import metadata
from services.catalog.text import TitleText
from services.runtime.errors import Unavailable
from services.runtime.idempotency import RequestIdReused
from services.runtime.sql import Database

NOW = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
ALL = Viewer(subject="services/search", sees_all=True)


def title(number: int = 1, **fields: object) -> Title:
    made = Title(
        title_id=f"t{number}",
        owner="users/ann",
        text=TitleText(display_name="千と千尋", description="d", release_year=2001, genres=("anime", "🎬")),
        create_time=NOW,
        update_time=NOW,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def rendition(name: str = "h264-720", **fields: object) -> Rendition:
    made = Rendition(rendition_id=name, kind=Kind.VIDEO, h264=True, height=720, encoded=b"planned")
    return replace(made, **fields)  # type: ignore[arg-type]


def segment(number: int) -> Segment:
    return Segment(
        number=number,
        duration_ticks=10,
        object_key=f"media/t1/j1/h264-720/{number}.m4s",
        size_bytes=1 << 40,
        sha256=bytes(32),
        encoded=b"e",
    )


async def save(store: SqlStore, *titles: Title) -> None:
    for one in titles:
        await store.write(methodcaller("save_title", one))


@pytest.fixture
def store(sql_database: Database) -> SqlStore:
    return SqlStore(sql_database)


async def test_the_migrations_make_the_schema_the_store_uses(sql_database: Database) -> None:
    def schema(connection: object) -> dict[str, set[str]]:
        found = inspect(connection)
        assert found is not None
        return {
            name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()
        }

    expected = {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}
    assert await sql_database.read(schema) == expected | {"alembic_version": {"version_num"}}


async def test_titles_come_back_whole(store: SqlStore) -> None:
    later = NOW + timedelta(microseconds=1)
    whole = title(
        version=1 << 40,
        job="jobs/j1",
        duration_ns=1 << 50,
        error=b"\x00\xff",
        update_time=later,
        playable_time=later,
        complete_time=later,
        delete_time=later,
        next_job="jobs/j2",
        next_error=b"\xff",
    )
    await store.write(lambda session: session.save_title(title()))
    assert await store.read(lambda session: session.title("t1")) == title()
    await store.write(lambda session: session.save_title(whole))
    assert await store.read(lambda session: session.title("t1")) == whole
    assert await store.read(lambda session: session.title("t2")) is None


async def test_a_request_makes_one_title(store: SqlStore) -> None:
    async def create(number: int, request: bytes) -> str:
        def save(session: Session) -> str:
            session.save_title(title(number))
            return f"t{number}"

        return await store.write(
            lambda session: session.once("users/ann/CreateTitle", "id", request, NOW, lambda: save(session))
        )

    assert [await create(1, b"a"), await create(2, b"a")] == ["t1", "t1"]
    assert await store.read(lambda session: session.title("t2")) is None
    with pytest.raises(RequestIdReused):
        await create(3, b"b")


async def test_lists_are_newest_first_without_gaps_or_repetitions(store: SqlStore) -> None:
    made = [title(number, create_time=NOW + timedelta(seconds=number // 2)) for number in range(1, 8)]
    await save(store, *made)
    seen: list[Title] = []
    after = None
    while page := await store.read(methodcaller("titles", ALL, after, 2)):
        seen += page
        after = (seen[-1].create_time, seen[-1].title_id)
    assert seen == sorted(made, key=lambda one: (one.create_time, one.title_id), reverse=True)


async def test_lists_hold_what_the_viewer_may_see(store: SqlStore) -> None:
    titles = {
        "playable": title(1, playable_time=NOW),
        "failed after it": title(2, playable_time=NOW, error=b"e"),
        "hidden": title(3),
        "own": title(4, owner="users/bob"),
        "deleted": title(5, playable_time=NOW, owner="users/bob", delete_time=NOW),
    }
    await save(store, *titles.values())

    async def seen(viewer: Viewer) -> set[str]:
        found = await store.read(lambda session: session.titles(viewer, None, 10))
        return {name for name, one in titles.items() if one in found}

    assert await seen(Viewer(subject="users/bob")) == {"playable", "failed after it", "own"}
    assert await seen(ALL) == {"playable", "failed after it", "own", "hidden"}


async def test_media_and_its_large_parts_come_back_whole(store: SqlStore) -> None:
    init = InitSegment(
        object_key="media/t1/j1/h264-720/init.mp4", sha256=b"i" * 32, codecs="avc1", timescale=90000
    )
    counted = rendition(
        init=init,
        published_count=3,
        ready_count=2,
        size_sum_bytes=1 << 45,
        duration_sum_ticks=1 << 41,
        peak_bits_per_second=1 << 33,
        last_number=9,
    )
    sound = rendition("aac-128-und-0", kind=Kind.SOUND, h264=False, height=0)
    media = Media(title_id="t1", job="jobs/j1", renditions=(rendition(), sound))
    full = replace(
        media,
        version=7,
        timescale=30000,
        duration_ticks=1 << 40,
        segment_count=3,
        planned=True,
        opening_count=2,
    ).with_rendition(counted)
    details = Details(frames=b"f" * 100_000, starts=(0, 150150, 1 << 40), highlights=b"h")
    await store.write(lambda session: session.save_media(media, ()))
    await store.write(lambda session: session.replace_renditions(media))
    assert await store.read(
        lambda session: (session.media("t1", "jobs/j1"), session.details("t1", "jobs/j1"))
    ) == (
        media,
        Details(),
    )
    await store.write(lambda session: session.save_media(full, [counted]))
    await store.write(lambda session: session.save_details("t1", "jobs/j1", replace(details, starts=(0,))))
    await store.write(lambda session: session.save_grid("t1", "jobs/j1", details.starts, b"h"))
    assert await store.read(
        lambda session: (session.media("t1", "jobs/j1"), session.details("t1", "jobs/j1"))
    ) == (full, details)


async def test_the_first_writer_of_a_segment_wins(store: SqlStore) -> None:
    where = ("t1", "jobs/j1", "h264-720")
    await store.write(lambda session: session.add_segments(*where, [segment(0), segment(2)]))
    late = replace(segment(0), object_key="late")
    with pytest.raises(Unavailable):
        await store.write(lambda session: session.add_segments(*where, [segment(1), late]))
    assert await store.read(lambda session: session.segments(*where, 0, 9)) == [segment(0), segment(2)]
    assert await store.read(lambda session: session.published(*where, [0, 1])) == {0: segment(0).object_key}


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 700])
async def test_the_ready_part_ends_at_the_first_gap(store: SqlStore, count: int) -> None:
    where = ("t1", "jobs/j1", "h264-720")
    there = [segment(number) for number in range(count)] + [segment(count + 1)]
    await store.write(lambda session: session.add_segments(*where, there))
    assert await store.read(lambda session: session.ready_from(*where, 0)) == count
    assert await store.read(lambda session: session.ready_from(*where, count // 2)) == count


async def test_what_was_changed_again_while_it_was_sent_stays_unsent(store: SqlStore) -> None:
    await store.write(lambda session: session.save_title(title()))
    newer = title(version=2, update_time=NOW + timedelta(seconds=1))
    await store.write(lambda session: session.save_title(newer))
    await store.write(lambda session: session.mark_sent("t1", 1))
    assert await store.read(lambda session: session.unsent(LATER, 9)) == [newer]
    await store.write(lambda session: session.mark_sent("t1", 2))
    assert await store.read(lambda session: session.unsent(LATER, 9)) == []


async def test_a_failed_transaction_leaves_nothing(store: SqlStore) -> None:
    def fail(session: Session) -> None:
        session.save_title(title())
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await store.write(fail)
    assert await store.read(lambda session: (session.title("t1"), session.unsent(LATER, 9))) == (None, [])


async def test_sweeps_are_kept_until_removed_and_forget_what_they_swept(store: SqlStore) -> None:
    whole = Sweep(title_id="t1", job="", due_time=NOW + timedelta(hours=1), rounds=2)
    job = Sweep(title_id="t2", job="jobs/j1", due_time=NOW, rounds=1)
    for sweep in (whole, job):
        await store.write(methodcaller("add_sweep", sweep))
    for title_id in ("t1", "t2"):
        for name in ("jobs/j1", "jobs/j2"):
            await store.write(methodcaller("add_segments", title_id, name, "h264-720", [segment(0)]))
    assert await store.read(lambda session: session.next_sweep()) == job
    assert await store.write(lambda session: session.forget_segments(job, 9)) == 1
    assert await store.read(lambda session: len(session.segments("t2", "jobs/j2", "h264-720", 0, 9))) == 1
    await store.write(lambda session: session.remove_sweep(job))
    assert await store.read(lambda session: session.next_sweep()) == whole
    assert [await store.write(lambda session: session.forget_segments(whole, 1)) for _ in range(3)] == [
        1,
        1,
        0,
    ]


async def test_what_several_jobs_made_of_a_title_stands_beside_each_other(store: SqlStore) -> None:
    old = Media(title_id="t1", job="jobs/j1", renditions=(rendition(published_count=1),))
    new = Media(title_id="t1", job="jobs/j2", renditions=(rendition("h264-480"), rendition()))
    for media in (old, new):
        await store.write(methodcaller("save_media", media, ()))
        await store.write(methodcaller("replace_renditions", media))
        details = Details(frames=media.job.encode())
        await store.write(methodcaller("save_details", "t1", media.job, details))
    changed = replace(old.renditions[0], published_count=2)
    old = replace(old.with_rendition(changed), version=2, replaced=True)
    await store.write(methodcaller("save_media", old, [changed]))
    await store.write(methodcaller("save_grid", "t1", "jobs/j1", [0, 1], b"h"))
    for media, starts in ((old, (0, 1)), (new, ())):
        assert await store.read(methodcaller("media", "t1", media.job)) == media
        found = await store.read(methodcaller("details", "t1", media.job))
        assert (found.frames, found.starts) == (media.job.encode(), starts)

    sweep = Sweep(title_id="t1", job="jobs/j1", due_time=NOW, rounds=1)
    await store.write(methodcaller("forget_media", sweep))
    assert await store.read(methodcaller("media", "t1", "jobs/j1")) == replace(old, renditions=())
    assert await store.read(methodcaller("details", "t1", "jobs/j1")) == Details()
    assert await store.read(methodcaller("media", "t1", "jobs/j2")) == new
    await store.write(methodcaller("forget_media", replace(sweep, job="")))
    for job in ("jobs/j1", "jobs/j2"):
        assert await store.read(methodcaller("media", "t1", job)) is None
