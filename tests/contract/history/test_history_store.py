from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect

from services.history.intervals import MAX_INTERVALS
from services.history.model import MAX_OFFSET_NS, Key, Report, View
from services.history.store import HistoryStore
from services.history.tables import metadata
from services.runtime.ids import new_id
from services.runtime.sql import Database
from tests.contract.history.reports import SECOND, Model, after, report

DAY_S = 24 * 3600


async def all_views(store: HistoryStore, profile: str, page: int) -> list[View]:
    """Page by page, as a client reads them."""
    seen: list[View] = []
    cursor = None
    while views := await store.views(profile, cursor, page):
        seen += views
        cursor = (views[-1].last_watch_time, views[-1].key.title)
    return seen


def titles(views: list[View]) -> list[str]:
    return [view.key.title.removeprefix("titles/t") for view in views]


async def test_the_migrations_make_the_schema_the_store_uses(sql_database: Database) -> None:
    def schema(connection: object) -> dict[str, set[str]]:
        found = inspect(connection)
        assert found is not None
        return {
            name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()
        }

    expected = {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}
    assert await sql_database.read(schema) == expected | {"alembic_version": {"version_num"}}


async def test_a_view_comes_back_as_it_was_recorded(store: HistoryStore, ann: str, kids: str) -> None:
    recorded = await store.record(report(ann))
    assert recorded == View.of(report(ann)) == await store.view(report(ann).key)
    assert await store.view(Key(profile=kids, title="titles/t1")) is None


async def test_reports_are_merged_whatever_their_order(store: HistoryStore, ann: str) -> None:
    heard = [
        report(ann, sequence=3, position_ns=9 * SECOND),
        report(ann, sequence=1, intervals=((20 * SECOND, 30 * SECOND),)),
        report(ann, started=-50, sequence=99, position_ns=77 * SECOND),
        report(ann, sequence=3, position_ns=9 * SECOND, receive_time=after(500)),
    ]
    expected = View.of(heard[0])
    for one in heard:
        expected = expected.merged(View.of(one))
        assert await store.record(one) == expected
    assert (expected.position_ns, expected.last_watch_time) == (9 * SECOND, after(3))
    assert await store.view(report(ann).key) == expected


async def test_concurrent_reports_are_all_kept(store: HistoryStore, ann: str) -> None:
    many = [
        report(ann, sequence=n, intervals=((2 * n * SECOND, (2 * n + 1) * SECOND),)) for n in range(1, 41)
    ]
    await asyncio.gather(*map(store.record, many))
    view = await store.view(report(ann).key)
    assert view is not None
    assert view.intervals == tuple(one.intervals[0] for one in many)
    assert view.order.sequence == 40


async def test_two_devices_at_once_are_both_kept_and_the_later_started_says_where(
    store: HistoryStore, ann: str
) -> None:
    old, new = (
        [
            report(
                ann,
                started=started,
                lease=lease,
                sequence=n,
                position_ns=n * SECOND + started,
                intervals=(((offset + n) * SECOND, (offset + n + 1) * SECOND),),
            )
            for n in range(1, 21)
        ]
        for started, lease, offset in ((0, "old", 0), (1, "new", 50))
    )
    await asyncio.gather(*(store.record(one) for pair in zip(old, new, strict=True) for one in pair))
    view = await store.view(old[0].key)
    assert view is not None
    assert view.intervals == ((SECOND, 21 * SECOND), (51 * SECOND, 71 * SECOND))
    assert (view.order.lease, view.position_ns) == ("leases/new", 20 * SECOND + 1)


async def test_a_rewind_is_believed_and_a_device_with_a_wrong_clock_is_not(
    store: HistoryStore, ann: str
) -> None:
    await store.record(report(ann, sequence=1, position_ns=90 * SECOND))
    await store.record(report(ann, sequence=2, position_ns=3 * SECOND))
    # Heard by a server whose clock is a year ahead, or behind: the order of playbacks alone counts.
    await store.record(report(ann, started=-1, sequence=9, receive_time=after(365 * DAY_S)))
    await store.record(report(ann, sequence=3, position_ns=4 * SECOND, receive_time=after(-365 * DAY_S)))
    view = await store.view(report(ann).key)
    assert view is not None
    assert (view.position_ns, view.last_watch_time) == (4 * SECOND, after(-365 * DAY_S))
    assert await store.views(ann, None, 9) == [view]


async def test_a_film_watched_to_its_end_is_one_stretch(store: HistoryStore, ann: str) -> None:
    for n in range(1, 31):
        await store.record(report(ann, sequence=n, intervals=(((n - 1) * SECOND, n * SECOND),)))
    view = await store.view(report(ann).key)
    assert view is not None
    assert view.intervals == ((0, 30 * SECOND),)
    assert view.first_watch_time == after(1)


async def test_a_title_played_again_and_again_keeps_all_it_was_seen_of(store: HistoryStore, ann: str) -> None:
    model = Model(ann)
    for n in range(12):
        played = report(
            ann, started=n * DAY_S, lease=str(n), intervals=((3 * n * SECOND, (3 * n + 1) * SECOND),)
        )
        assert await store.record(played) == model.record(played)
    late = report(ann, started=DAY_S, lease="1", sequence=7, intervals=((80 * SECOND, 90 * SECOND),))
    expected = model.record(late)
    assert await store.record(late) == expected
    assert await store.view(late.key) == expected
    assert await store.views(ann, None, 9) == [expected]


async def test_views_are_listed_last_watched_first_without_gaps_or_repetitions(
    store: HistoryStore, ann: str, kids: str
) -> None:
    for title in range(1, 8):
        await store.record(report(ann, title, started=title // 2))
    await store.record(report(kids))
    await store.record(report(ann, 2, started=100))
    for page in (1, 2, 3, 9):
        assert titles(await all_views(store, ann, page)) == ["2", "7", "6", "5", "4", "3", "1"]


async def test_titles_watched_in_the_same_instant_are_listed_once_each(store: HistoryStore, ann: str) -> None:
    await asyncio.gather(*(store.record(report(ann, title)) for title in range(1, 8)))
    for page in (1, 3, 7):
        assert titles(await all_views(store, ann, page)) == list("7654321")


async def test_lists_reach_over_days_and_years(store: HistoryStore, ann: str) -> None:
    when = [0, 1, 30, 31, 200, 364, 365, 800]
    for title, days in enumerate(when):
        await store.record(report(ann, title, started=days * DAY_S))
    await store.record(report(ann, 2, started=365 * DAY_S + 9))
    for page in (1, 3, 20):
        assert titles(await all_views(store, ann, page)) == list("72654310")


async def test_finished_views_are_not_continued_until_they_are_begun_again(
    store: HistoryStore, ann: str
) -> None:
    await store.record(report(ann, 1))
    await store.record(report(ann, 2, position_ns=99 * SECOND))
    assert titles(await store.unfinished(ann, 9)) == ["1"]
    await store.record(report(ann, 2, started=60, position_ns=2 * SECOND))
    assert titles(await store.unfinished(ann, 9)) == ["2", "1"]
    assert titles(await store.unfinished(ann, 1)) == ["2"]


async def test_a_deleted_view_stays_deleted_for_playbacks_started_before(
    store: HistoryStore, ann: str
) -> None:
    await store.record(report(ann))
    await store.record(report(ann, 2))
    await store.delete(report(ann).key, after(10))
    await store.delete(report(ann).key, after(9))
    assert await store.view(report(ann).key) is None
    assert await store.record(report(ann, sequence=2)) is None
    assert await store.record(report(ann, started=10)) is None
    assert titles(await store.views(ann, None, 9)) == ["2"]
    fresh = report(ann, started=10.000001)
    assert await store.record(fresh) == View.of(fresh) == await store.view(fresh.key)
    assert titles(await store.views(ann, None, 9)) == ["1", "2"]


async def test_a_deletion_does_not_swallow_what_is_watched_later_and_heard_at_once(
    store: HistoryStore, ann: str
) -> None:
    async def clear(now: datetime) -> None:
        await store.clear(ann, now)

    async def delete(now: datetime) -> None:
        await store.delete(report(ann).key, now)

    for at, deletion in ((0, delete), (100, clear)):
        old = [report(ann, started=at + n, lease=str(n)) for n in range(6)]
        fresh = [report(ann, started=at + 20 + n, lease=f"new{n}") for n in range(6)]
        await asyncio.gather(*map(store.record, old))
        await asyncio.gather(deletion(after(at + 10)), *map(store.record, fresh))
        view = await store.view(old[0].key)
        # Each recording came before the deletion and is gone, or came after it and counts.
        assert view is None or view.first_watch_time > after(at + 20)
        assert await store.record(report(ann, started=at + 40)) is not None
        assert titles(await store.views(ann, None, 9)) == ["1"]


async def test_a_cleared_history_stays_cleared_but_not_for_other_profiles(
    store: HistoryStore, ann: str, kids: str
) -> None:
    for profile in (ann, kids):
        await store.record(report(profile))
        await store.record(report(profile, 2, started=-700 * DAY_S))
    for _ in range(2):
        await store.clear(ann, after(10))
    assert await store.views(ann, None, 9) == []
    assert await store.view(report(ann).key) is None
    assert await store.record(report(ann, 2, started=9)) is None
    assert await store.record(report(ann, 2, started=11)) is not None
    assert titles(await store.views(ann, None, 9)) == ["2"]
    assert len(await store.views(kids, None, 9)) == 2


async def test_a_deletion_covers_playbacks_whose_node_has_a_fast_clock(store: HistoryStore, ann: str) -> None:
    await store.record(report(ann, started=30))
    await store.delete(report(ann).key, after(10))
    assert await store.record(report(ann, started=30, sequence=2)) is None
    assert await store.record(report(ann, started=31)) is not None
    await store.clear(ann, after(10))
    assert await store.record(report(ann, 2, started=31)) is None
    assert await store.record(report(ann, 2, started=32)) is not None


async def test_what_is_as_large_as_allowed_comes_back(store: HistoryStore) -> None:
    profile = f"users/{new_id()}/profiles/".ljust(160, "p")
    every = MAX_OFFSET_NS // (MAX_INTERVALS + 50)
    many = [(n * every, n * every + every // 2) for n in range(MAX_INTERVALS + 50)]
    model, sent = Model(profile), 0
    for sequence, at in enumerate(range(0, len(many), 100), start=1):
        large = report(
            profile,
            sequence=sequence if at + 100 < len(many) else (1 << 63) - 1,
            position_ns=MAX_OFFSET_NS,
            intervals=tuple(many[at : at + 100]),
            duration_ns=MAX_OFFSET_NS,
            device="\U0001f3ac" * 255,
            receive_time=after(sequence),
        )
        assert await store.record(large) == model.record(large)
        sent += 1
    view = await store.view(Key(profile=profile, title="titles/t1"))
    assert view is not None
    assert (sent, view.order.sequence, len(view.intervals)) == (11, (1 << 63) - 1, MAX_INTERVALS)
    assert await store.views(profile, None, 2) == [view] == model.newest()
    await store.delete(view.key, after(0))
    assert await store.view(view.key) is None


@pytest.mark.parametrize("name", ["наблюдатель", "שלום", "日本語", "a\u0301é", "x' OR '1'='1", "\U0001f3ac"])
async def test_names_of_every_script_are_kept_apart(store: HistoryStore, ann: str, name: str) -> None:
    heard = report(f"{ann}{name}", device=name, key=Key(profile=f"{ann}{name}", title=f"titles/{name}"))
    assert await store.record(heard) == View.of(heard) == await store.view(heard.key)
    assert await store.views(f"{ann}{name}", None, 9) == [View.of(heard)]
    assert await store.views(ann, None, 9) == []


moments = st.integers(0, 4).map(lambda n: n * DAY_S / 2)
heard_reports = st.builds(
    lambda title, started, lease, sequence, heard, position, watched: report(
        "",
        title,
        started=started,
        lease=lease,
        sequence=sequence,
        receive_time=after(heard),
        position_ns=position * SECOND,
        intervals=tuple((start * SECOND, (start + length) * SECOND) for start, length in watched),
    ),
    st.integers(1, 3),
    moments,
    st.sampled_from("ab"),
    st.integers(1, 4),
    moments,
    st.integers(0, 99),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=4),
)
steps = st.one_of(
    st.lists(heard_reports, min_size=1, max_size=8),
    st.tuples(st.sampled_from(["titles/t1", "titles/t2", ""]), moments),
)


def of(profile: str, heard: Report) -> Report:
    return report(profile, **{**vars(heard), "key": Key(profile=profile, title=heard.key.title)})


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(steps, max_size=8))
async def test_any_interleaving_of_reports_and_deletions_gives_what_the_model_says(
    store: HistoryStore, history: list[list[Report] | tuple[str, float]]
) -> None:
    profile = f"users/{new_id()}/profiles/ann"
    model = Model(profile)
    for step in history:
        if isinstance(step, list):
            together = [of(profile, one) for one in step]
            await asyncio.gather(*map(store.record, [*together, together[0]]))
            for one in together:
                model.record(one)
        elif step[0]:
            await store.delete(Key(profile=profile, title=step[0]), after(step[1]))
            model.delete(step[0], after(step[1]))
        else:
            await store.clear(profile, after(step[1]))
            model.delete("", after(step[1]))
    expected = model.newest()
    assert await all_views(store, profile, 2) == expected
    assert await store.unfinished(profile, 9) == [view for view in expected if not view.finished]
    for title in ("titles/t1", "titles/t2", "titles/t3"):
        assert await store.view(Key(profile=profile, title=title)) == model.views.get(title)
