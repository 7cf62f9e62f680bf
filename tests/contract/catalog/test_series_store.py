from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from operator import methodcaller

import pytest

from services.catalog.model import Title, Viewer
from services.catalog.rights import Window
from services.catalog.series import Episode, Place, Season, Series
from services.catalog.store import Session
from services.catalog.store_sql import SqlStore
from services.catalog.text import TitleText
from services.runtime.sql import Database
from tests.contract.catalog.test_catalog_store import ALL, NOW, save, title

ANN, BOB = Viewer(subject="users/ann"), Viewer(subject="users/bob")
PROFILE = "users/bob/profiles/main"


def series(number: int = 1, **fields: object) -> Series:
    text = TitleText(display_name="Деkалог", description="d", release_year=1989, genres=("drama",))
    made = Series(series_id=f"s{number}", owner="users/ann", text=text, create_time=NOW, update_time=NOW)
    return replace(made, **fields)  # type: ignore[arg-type]


def season(number: int, series_number: int = 1) -> Season:
    return Season(
        season_id=f"s{series_number}n{number}",
        series_id=f"s{series_number}",
        number=number,
        create_time=NOW,
        display_name="Winter",
    )


async def fill(store: SqlStore) -> None:
    """Two seasons, the later one saved first; t3 is not visible."""
    shown = {"playable_time": NOW}
    await save(store, title(1, **shown), title(2, **shown), title(3), title(4, **shown))

    def run(session: Session) -> None:
        session.save_series(series())
        for one in (season(2), season(1)):
            session.save_season(one)
        session.save_episodes("s1n2", [Episode(title_id="t1", season_id="s1n2", number=1)])
        inside = [Episode(title_id=f"t{n}", season_id="s1n1", number=n) for n in (3, 2)]
        session.save_episodes("s1n1", inside)

    await store.write(run)


@pytest.fixture
def store(sql_database: Database) -> SqlStore:
    return SqlStore(sql_database)


async def test_a_series_is_read_back_as_it_was_saved(store: SqlStore) -> None:
    await fill(store)
    assert await store.read(methodcaller("series", "s1")) == series()
    assert await store.read(methodcaller("series", "s2")) is None
    assert await store.read(methodcaller("seasons", "s1")) == [season(1), season(2)]
    changed = series(version=2, text=TitleText(display_name="Dekalog"))
    await store.write(methodcaller("save_series", changed))
    assert await store.read(methodcaller("series", "s1")) == changed


async def test_a_title_tells_its_place_rights_and_publication(store: SqlStore) -> None:
    await fill(store)
    place = Place(series_id="s1", series_name="Деkалог", season_id="s1n2", season_number=2, number=1)
    found = await store.read(methodcaller("title", "t1"))
    assert found == title(1, playable_time=NOW, place=place)
    window = Window(start=NOW, end=NOW + timedelta(days=1), regions=("DE", "FR"))
    await store.write(methodcaller("save_title", replace(found, unpublished=True, rights=(window, Window()))))
    found = await store.read(methodcaller("title", "t1"))
    assert (found.unpublished, found.rights, found.place) == (True, (window, Window()), place)


async def test_episodes_come_by_season_and_number_as_far_as_the_viewer_sees_them(store: SqlStore) -> None:
    await fill(store)

    async def ids(viewer: Viewer, season_id: str, after: tuple[int, int], limit: int = 9) -> list[str]:
        found = await store.read(methodcaller("episode_titles", viewer, "s1", season_id, after, limit))
        return [one.title_id for one in found]

    assert await ids(ALL, "", (-1, -1)) == ["t2", "t3", "t1"]
    assert await ids(BOB, "", (-1, -1)) == ["t2", "t1"]
    assert await ids(ANN, "s1n1", (1, 2)) == ["t3"]
    assert await ids(BOB, "", (1, 2), 1) == ["t1"]


async def test_viewers_see_a_series_with_a_visible_episode(store: SqlStore) -> None:
    await fill(store)
    await store.write(methodcaller("save_series", series(2, create_time=NOW + timedelta(seconds=1))))

    async def ids(viewer: Viewer, after: object = None) -> list[str]:
        found = await store.read(methodcaller("series_seen", viewer, after, 9))
        return [one.series_id for one in found]

    assert (await ids(ALL), await ids(ANN), await ids(BOB)) == (["s2", "s1"], ["s2", "s1"], ["s1"])
    assert await ids(ANN, (NOW + timedelta(seconds=1), "s2")) == ["s1"]
    for number in (1, 2):
        await store.write(
            methodcaller("save_title", title(number, playable_time=NOW, unpublished=True, version=2))
        )
    assert await ids(BOB) == []


async def test_lists_of_titles_can_leave_out_episodes(store: SqlStore) -> None:
    await fill(store)
    found = await store.read(lambda session: session.titles(ALL, None, 9, without_episodes=True))
    assert [one.title_id for one in found] == ["t4"]


async def test_episodes_are_replaced_whole(store: SqlStore) -> None:
    await fill(store)
    turned = [
        Episode(title_id="t3", season_id="s1n1", number=2),
        Episode(title_id="t2", season_id="s1n1", number=3),
    ]
    await store.write(methodcaller("save_episodes", "s1n1", turned))
    assert await store.read(methodcaller("episodes", "s1n1")) == turned
    await store.write(methodcaller("save_episodes", "s1n1", []))
    assert await store.read(methodcaller("episodes", "s1n1")) == []


async def test_a_watchlist_is_last_added_first_and_bounded(store: SqlStore) -> None:
    for number in range(3):
        when = NOW + timedelta(seconds=number)
        subject = ["titles/t1", "series/s1", "titles/t2"][number]
        assert await store.write(methodcaller("watch", PROFILE, subject, when, 3)) == when
    later = NOW + timedelta(days=1)
    assert await store.write(methodcaller("watch", PROFILE, "titles/t1", later, 3)) == NOW
    assert await store.write(methodcaller("watch", PROFILE, "titles/t3", later, 3)) is None

    async def subjects(after: object = None, limit: int = 9) -> list[str]:
        return [subject for subject, _ in await store.read(methodcaller("watched", PROFILE, after, limit))]

    assert await subjects() == ["titles/t2", "series/s1", "titles/t1"]
    assert await subjects((NOW + timedelta(seconds=1), "series/s1")) == ["titles/t1"]
    await store.write(methodcaller("unwatch", PROFILE, "t1"))
    await store.write(methodcaller("unwatch", PROFILE, "t1"))
    assert await subjects() == ["titles/t2", "series/s1"]


async def test_what_is_deleted_leaves_its_season_and_all_lists(store: SqlStore) -> None:
    await fill(store)
    for subject in ("titles/t1", "series/s1"):
        await store.write(methodcaller("watch", PROFILE, subject, NOW, 9))
    await store.write(methodcaller("leave_places", "t1"))
    assert await store.read(methodcaller("episodes", "s1n2")) == []
    await store.write(methodcaller("remove_season", "s1n2"))
    await store.write(methodcaller("remove_series", "s1"))
    assert await store.read(methodcaller("seasons", "s1")) == [season(1)]
    assert await store.read(methodcaller("watched", PROFILE, None, 9)) == []


async def test_titles_of_a_series_are_found_whoever_may_see_them(store: SqlStore) -> None:
    await fill(store)
    found: list[Title] = await store.read(methodcaller("series_titles", "s1"))
    assert sorted(one.title_id for one in found) == ["t1", "t2", "t3"]
