from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.search.model import Document, Viewer
from services.search.store import RebuildSuperseded, TitleIndex
from services.search.text import fold
from tests.support import queries

BOB = Viewer(subject="users/bob")
OPERATOR = Viewer(subject="users/root", sees_all=True)
#: Pages of hits, and the queries of one class.
LIMIT, CASES = 10, 100


def document(name: str, number: int, **fields: object) -> Document:
    made = Document(
        title=f"titles/{number}",
        version=1,
        display_name=name,
        owner="users/ann",
        visible=True,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


async def found(index: TitleIndex, query: str, viewer: Viewer = BOB) -> list[str]:
    return [hit.document.display_name for hit in await index.search(query, viewer, LIMIT)]


async def fill(index: TitleIndex, names: Sequence[str]) -> None:
    documents = [document(name, number) for number, name in enumerate(names, 1)]
    for start in range(0, len(documents), 500):
        await index.put(documents[start : start + 500])


async def test_three_thousand_titles_are_found_however_they_are_typed(index: TitleIndex) -> None:
    titles = queries.film_titles()
    await fill(index, titles)
    floors = {
        queries.exact: 0.99,
        queries.one_typo: 0.98,
        queries.two_typos: 0.95,
        queries.joined: 0.99,
        queries.shuffled: 0.95,
        queries.dropped_word: 0.90,
        queries.prefix: 0.75,
        queries.prefix_with_typo: 0.75,
    }
    reached = {}
    for make in floors:
        hits = [
            fold(title) in [fold(name) for name in (await found(index, query))[:1]]
            for query, title in queries.cases(make, titles, CASES)
        ]
        assert len(hits) == CASES
        reached[make] = sum(hits) / CASES
    assert {make.__name__: share for make, share in reached.items() if share < floors[make]} == {}


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("千と千尋の神隠し", "千尋"),
        ("千と千尋の神隠し", "千と千尋"),
        ("七人の侍", "侍"),
        ("花樣年華", "花樣年"),
        ("花樣年華", "花祥年華"),
        ("기생충", "기생충"),
        ("기생충", "기샹충"),
        ("คนเล็กหมัดเทวดา", "หมัดเทวดา"),
        ("مدينة الملائكة", "مدينه الملائكه"),
        ("שלום עולם", "שלם עולם"),
        ("Солярис", "салярис"),
        ("Le Fabuleux Destin d'Amélie Poulain", "amelie poulain"),
        ("Spider-Man", "spiderman"),
        ("WALL·E", "walle"),
        ("M", "m"),
        ("Up", "UP"),
        ("8½", "8 1/2"),
        ("???", "???"),
        ("🎬🍿", "🍿"),
    ],
)
async def test_titles_of_every_script_are_found(index: TitleIndex, name: str, query: str) -> None:
    others = [
        "東京物語",
        "生きる",
        "무사",
        "الأب",
        "אור",
        "Сталкер",
        "Solaris",
        "Ikiru",
        "The Father",
        "X-Men",
    ]
    await fill(index, [name, *others])
    assert (await found(index, query))[:1] == [name]


@pytest.mark.parametrize(
    "query",
    [
        '"', "'", "*", "a*", "NEAR(a b)", "a AND b", "a OR", "NOT x", "-x", "(", "{x y}: z", "pieces:sol",
        "^sol", "'; DROP TABLE documents; --", "%", "_", "\\", "\x00", "a\x00b", "x " * 100, "x" * 200,
        "é" * 200, "ab cd ef gh " * 16, "\u202e" * 10, "\ud7ff", "🎬" * 200, "a\u0301" * 100,
        "".join(map(chr, range(0x4E00, 0x4EC8))),
    ],
)  # fmt: skip
async def test_any_text_is_plain_text(index: TitleIndex, query: str) -> None:
    await fill(index, ["Solaris", "Stalker"])
    await found(index, query)
    assert await found(index, "solaris") == ["Solaris"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(min_size=1, max_size=200))
async def test_no_text_breaks_the_search(index: TitleIndex, query: str) -> None:
    await index.put([document("Solaris", 1)])
    assert await found(index, query) in ([], ["Solaris"])


async def test_what_the_viewer_may_not_see_takes_no_place(index: TitleIndex) -> None:
    hidden = [document("Solaris", number, visible=False) for number in range(1, 400)]
    await index.put(
        [
            *hidden,
            document("Solaris II", 1000),
            document("Solaris III", 1001, visible=False, owner="users/bob"),
        ]
    )
    assert await found(index, "solaris") == ["Solaris II", "Solaris III"]
    assert set(await found(index, "solaris", OPERATOR)) == {"Solaris"}


async def test_an_older_version_never_replaces_a_newer_one(index: TitleIndex) -> None:
    await index.put([document("Solaris", 1, version=3)])
    await index.put([document("Stalker", 1, version=2), document("Mirror", 1, version=3)])
    assert (await found(index, "solaris"), await found(index, "stalker"), await found(index, "mirror")) == (
        ["Solaris"],
        [],
        [],
    )
    await index.put([document("Stalker", 1, version=4)])
    assert (await found(index, "solaris"), await found(index, "stalker")) == ([], ["Stalker"])


async def test_a_deleted_title_is_gone_and_old_news_does_not_bring_it_back(index: TitleIndex) -> None:
    await index.put([document("Solaris", 1)])
    await index.put([Document(title="titles/1", version=2, deleted=True)])
    await index.put([document("Solaris", 1)])
    await index.put([Document(title="titles/2", version=1, deleted=True)])
    assert await found(index, "solaris", OPERATOR) == []


async def test_a_new_generation_answers_only_when_it_is_whole(index: TitleIndex) -> None:
    await index.put([document("Solaris", 1), document("Stalker", 2)])
    assert not await index.built()
    generation = await index.begin()
    await index.fill(generation, [document("Mirror", 3)])
    assert (await found(index, "solaris"), await found(index, "mirror")) == (["Solaris"], [])
    assert await index.finish(generation) == 1
    assert (await found(index, "solaris"), await found(index, "mirror")) == ([], ["Mirror"])
    assert await index.built()


async def test_news_during_a_rebuild_is_in_both_generations(index: TitleIndex) -> None:
    await index.put([document("Solaris", 1), document("Stalker", 2)])
    generation = await index.begin()
    await index.put([document("Solyaris", 1, version=2), Document(title="titles/2", version=2, deleted=True)])
    assert (await found(index, "solyaris"), await found(index, "stalker")) == (["Solyaris"], [])
    await index.fill(generation, [document("Solaris", 1), document("Stalker", 2)])
    assert await index.finish(generation) == 1
    assert (await found(index, "solyaris"), await found(index, "stalker")) == (["Solyaris"], [])


async def test_a_rebuild_that_was_broken_off_leaves_nothing(index: TitleIndex) -> None:
    await index.put([document("Solaris", 1)])
    broken = await index.begin()
    await index.fill(broken, [document("Stalker", 2)])
    generation = await index.begin()
    assert generation != broken
    assert await index.finish(generation) == 0
    assert (await found(index, "stalker"), await found(index, "solaris")) == ([], [])


async def test_a_rebuild_that_another_took_the_place_of_ends(index: TitleIndex) -> None:
    first = await index.begin()
    second = await index.begin()
    with pytest.raises(RebuildSuperseded):
        await index.fill(first, [document("Solaris", 1)])
    with pytest.raises(RebuildSuperseded):
        await index.finish(first)
    assert await index.finish(second) == 0
    with pytest.raises(RebuildSuperseded):
        await index.finish(second)


async def test_of_many_writers_of_one_title_the_newest_version_stays(index: TitleIndex) -> None:
    names = ["Solaris", "Stalker", "Mirror", "Nostalghia", "Ivan's Childhood", "The Sacrifice"]
    news = [document(name, 1, version=version) for version, name in enumerate(names, 1)]
    await asyncio.gather(*(index.put([one]) for one in reversed(news)), *(index.put([one]) for one in news))
    assert [await found(index, name) for name in names] == [[]] * 5 + [["The Sacrifice"]]


async def test_of_several_versions_in_one_put_the_newest_stays(index: TitleIndex) -> None:
    await index.put(
        [document(name, 1, version=version) for name, version in (("Solaris", 2), ("Stalker", 1))]
    )
    assert (await found(index, "solaris"), await found(index, "stalker")) == (["Solaris"], [])


async def test_hits_come_best_first_and_no_more_than_asked_for(index: TitleIndex) -> None:
    numbers = [document("Rocky", n, release_year=1970 + n) for n in range(1, 31)]
    await index.put([document("Rocky Balboa", 31), *numbers, document("Rock", 32)])
    hits = await index.search("rocky", BOB, 200)
    assert [hit.document.release_year for hit in hits[:30]] == list(range(2000, 1970, -1))
    assert [hit.document.display_name for hit in hits[30:]] == ["Rocky Balboa", "Rock"]
    assert await index.search("rocky", BOB, 7) == hits[:7]
    assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]


async def test_what_was_put_in_is_what_is_found(index: TitleIndex) -> None:
    whole = Document(
        title="titles/" + "x" * 63,
        version=2**63 - 1,
        display_name="\U0001f3ac Ω\u0301\u202e" + "長い名前" * 49,
        release_year=2026,
        owner="users/" + "y" * 63,
        visible=True,
    )
    await index.put([whole])
    (hit,) = await index.search(whole.display_name, BOB, LIMIT)
    assert hit.document == whole
    await index.put([whole])
    assert await index.search(whole.display_name, BOB, LIMIT) == [hit]


async def test_a_title_is_hidden_shown_and_renamed_by_its_news(index: TitleIndex) -> None:
    await index.put([document("Solaris", 1, visible=False)])
    assert await found(index, "solaris") == []
    await index.put([document("Solaris", 1, version=2)])
    assert await found(index, "solaris") == ["Solaris"]
    await index.put([document("Mirror", 1, version=3)])
    assert (await found(index, "solaris"), await found(index, "mirror")) == ([], ["Mirror"])


async def test_news_that_comes_all_the_while_is_in_the_generation_that_is_built(index: TitleIndex) -> None:
    """Each title is in the catalog before its news, and the walk sees what was there when it began."""
    catalog: dict[int, Document] = {}
    built = asyncio.Event()

    async def change(first: int) -> None:
        version = 1
        while not built.is_set():
            for number in range(first, 40, 4):
                catalog[number] = document(f"Rocky {number} v{version}", number, version=version)
                await index.put([catalog[number]])
            version += 1

    writers = [asyncio.create_task(change(first)) for first in range(4)]
    for _ in range(3):
        generation = await index.begin()
        walked = list(catalog.values())
        for start in range(0, len(walked), 10):
            await index.fill(generation, walked[start : start + 10])
        await index.finish(generation)
    built.set()
    await asyncio.gather(*writers)
    hits = await index.search("rocky", OPERATOR, 100)
    assert {hit.document.title: hit.document for hit in hits} == {one.title: one for one in catalog.values()}
