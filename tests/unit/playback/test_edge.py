from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from services.playback.cache import ChunkCache
from services.playback.chunks import Chunks, Track
from services.playback.disk import Edge, item_of
from services.playback.errors import SegmentCorrupt
from services.playback.folder import Folder
from services.playback.placement import Item, Placement
from services.runtime.clock import ManualClock
from services.runtime.objects import ObjectNotFound
from services.runtime.objects_local import LocalObjects

SIZE = 1000


def key(title: str, number: int) -> str:
    return f"media/{title}/job/h264-360/{number:06}-1.m4s"


def content(title: str, number: int) -> bytes:
    return f"{title}{number}".encode().ljust(SIZE, b".")


def digest(title: str, number: int) -> bytes:
    return hashlib.sha256(content(title, number)).digest()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[LocalObjects]:
    store = LocalObjects(tmp_path / "origin")
    for title in "abc":
        for number in range(3):
            await store.put(key(title, number), content(title, number))
    yield store
    await store.close()


def edge_in(tmp_path: Path, origin: LocalObjects, clock: ManualClock, budget: int = 3 * SIZE) -> Edge:
    return Edge(origin, Folder(tmp_path / "edge"), budget, clock)


async def watched(edge: Edge, title: str, number: int, times: int = 1) -> bytes:
    for _ in range(times):
        edge.asked(key(title, number))
    return await edge.read(key(title, number), digest(title, number))


def on_disk(tmp_path: Path) -> int:
    return sum(file.stat().st_size for file in (tmp_path / "edge").iterdir() if "@" in file.name)


async def test_a_thousand_misses_are_one_read_of_the_origin(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    cache = ChunkCache(origin, 1 << 20, edge)
    pack = partial(Chunks, Track.VIDEO, 0)
    await asyncio.gather(*(cache.get(key("a", 0), digest("a", 0), pack) for _ in range(1000)))
    assert (cache.load_count, edge.origin_bytes, edge.disk_bytes) == (1, SIZE, 0)


async def test_a_part_comes_from_the_disk_where_it_is_and_else_from_the_origin(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    await watched(edge, "a", 0)
    assert await edge.part(key("a", 0), 1, 3) == content("a", 0)[1:4]
    assert (edge.origin_bytes, edge.disk_bytes) == (SIZE, 3)
    for file in (tmp_path / "edge").iterdir():
        file.unlink()
    assert await edge.part(key("a", 0), 1, 3) == content("a", 0)[1:4]
    assert (edge.origin_bytes, edge.disk_bytes) == (SIZE + 3, 3)


async def test_what_is_kept_survives_a_restart_and_the_loss_of_the_origin(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    await watched(edge_in(tmp_path, origin, clock), "a", 0)
    await origin.delete(key("a", 0))
    again = edge_in(tmp_path, origin, clock)
    assert await watched(again, "a", 0) == content("a", 0)
    assert (again.kept_bytes, again.disk_bytes, again.origin_bytes) == (SIZE, SIZE, 0)


async def test_the_budget_is_never_passed_and_the_watched_title_stays(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    for number in range(3):
        await watched(edge, "a", number, times=5)
    for title in "bc":
        for number in range(3):
            await watched(edge, title, number)
            assert on_disk(tmp_path) == edge.kept_bytes == 3 * SIZE
    before = edge.origin_bytes
    for number in range(3):
        await watched(edge, "a", number)
    assert edge.origin_bytes == before


async def test_a_title_that_becomes_hot_displaces_what_nobody_watches_any_more(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    for number in range(3):
        await watched(edge, "a", number, times=5)
    clock.advance(3 * 86_400)
    for number in range(3):
        await watched(edge, "b", number, times=5)
    before = edge.origin_bytes
    for number in range(3):
        await watched(edge, "b", number)
    assert edge.origin_bytes == before
    assert on_disk(tmp_path) <= 3 * SIZE


async def test_a_wrong_answer_of_the_origin_is_neither_served_nor_kept(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    with pytest.raises(SegmentCorrupt):
        await edge.read(key("a", 0), digest("a", 1))
    assert (edge.kept_bytes, on_disk(tmp_path)) == (0, 0)


@pytest.mark.parametrize("answer", [b"", content("a", 0)[:-1], content("a", 0) + b".", content("b", 0)])
async def test_a_truncated_or_wrong_answer_goes_to_none_of_a_thousand_who_wait_and_the_right_one_to_all(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock, answer: bytes
) -> None:
    await origin.delete(key("a", 0))
    await origin.put(key("a", 0), answer)
    edge = edge_in(tmp_path, origin, clock)
    cache = ChunkCache(origin, 1 << 20, edge)

    async def asked() -> list[object]:
        pack = partial(Chunks, Track.VIDEO, 0)
        waiting = (cache.get(key("a", 0), digest("a", 0), pack) for _ in range(1000))
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(one) for one in await asked()} == {SegmentCorrupt}
    assert (cache.load_count, cache.kept_bytes, edge.kept_bytes, on_disk(tmp_path)) == (1, 0, 0, 0)
    await origin.delete(key("a", 0))
    await origin.put(key("a", 0), content("a", 0))
    assert {type(one) for one in await asked()} == {Chunks}
    assert (cache.load_count, edge.kept_bytes) == (2, SIZE)


@pytest.mark.parametrize("damage", [b"", content("a", 0)[:-1], content("b", 0)])
async def test_a_damaged_file_is_read_again_from_the_origin(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock, damage: bytes
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    await watched(edge, "a", 0)
    next((tmp_path / "edge").iterdir()).write_bytes(damage)
    assert await watched(edge, "a", 0) == content("a", 0)
    assert (edge.disk_bytes, edge.origin_bytes, edge.kept_bytes) == (0, 2 * SIZE, SIZE)


async def test_what_an_earlier_process_left_unfinished_or_beyond_the_budget_goes(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    for number in range(3):
        await watched(edge, "a", number)
    half = next((tmp_path / "edge").iterdir())
    half.with_name(half.name + ".part").write_bytes(b"half")
    smaller = edge_in(tmp_path, origin, clock, budget=SIZE)
    assert (smaller.kept_bytes, on_disk(tmp_path)) == (SIZE, SIZE)


async def test_of_what_is_beyond_a_smaller_budget_the_hottest_stays(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock, budget=9 * SIZE)
    for title, times in (("a", 1), ("b", 4), ("c", 2)):
        for number in range(3):
            await watched(edge, title, number, times)
    await edge.close()
    smaller = edge_in(tmp_path, origin, clock)
    for title in "abc":
        for number in range(3):
            await smaller.read(key(title, number), digest(title, number))
    assert (smaller.disk_bytes, smaller.kept_bytes) == (3 * SIZE, 3 * SIZE)
    for number in range(3):
        await origin.delete(key("b", number))
        assert await smaller.read(key("b", number), digest("b", number)) == content("b", number)


async def test_what_was_played_before_a_restart_counts_after_it(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    for number in range(3):
        await watched(edge, "a", number, times=5)
    await edge.close()
    clock.advance(3600)
    again = edge_in(tmp_path, origin, clock)
    for number in range(3):
        await watched(again, "b", number)
    assert again.origin_bytes == 3 * SIZE
    for number in range(3):
        await watched(again, "a", number)
    assert again.origin_bytes == 3 * SIZE


async def test_a_damaged_memory_of_plays_is_put_aside_and_what_is_kept_serves(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    await watched(edge, "a", 0)
    await edge.close()
    plays = tmp_path / "edge" / "edge-plays.json"
    plays.write_bytes(plays.read_bytes().replace(b"1.0", b"9.0"))
    damaged = plays.read_bytes()
    again = edge_in(tmp_path, origin, clock)
    assert await watched(again, "a", 0) == content("a", 0)
    assert (again.disk_bytes, again.origin_bytes) == (SIZE, 0)
    assert plays.with_name("edge-plays.json.damaged").read_bytes() == damaged
    assert not plays.exists()


@pytest.mark.parametrize(
    "name", ["notes.txt", "a@b@c", "half.part", f"{'0' * 64}@x@media@a", "film@1@2.part"]
)
async def test_a_file_that_is_not_the_edges_stays_and_hinders_nothing(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock, name: str
) -> None:
    (tmp_path / "edge" / "folder").mkdir(parents=True)
    (tmp_path / "edge" / name).write_bytes(b"mine")
    edge = edge_in(tmp_path, origin, clock)
    await watched(edge, "a", 0)
    await edge.close()
    again = edge_in(tmp_path, origin, clock)
    assert (again.kept_bytes, (tmp_path / "edge" / name).read_bytes()) == (SIZE, b"mine")
    assert (tmp_path / "edge" / "folder").is_dir()


async def test_an_init_segment_keeps_its_place_as_long_as_its_rendition(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    init = {title: f"media/{title}/job/h264-360/init.mp4" for title in "ab"}
    for title in "ab":
        await origin.put(init[title], title.encode())
    edge = edge_in(tmp_path, origin, clock, budget=3 * SIZE + 1)
    for title, times in (("a", 2), ("b", 5)):
        edge.asked(init[title])
        await edge.read(init[title], hashlib.sha256(title.encode()).digest())
        for number in range(3):
            await watched(edge, title, number, times)
            assert on_disk(tmp_path) <= 3 * SIZE + 1
    await origin.delete(init["b"])
    assert await edge.read(init["b"], hashlib.sha256(b"b").digest()) == b"b"


async def test_what_became_hot_in_memory_comes_to_the_disk(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    edge = edge_in(tmp_path, origin, clock)
    cache = ChunkCache(origin, 1 << 20, edge)
    pack = partial(Chunks, Track.VIDEO, 0)
    for number in range(3):
        await watched(edge, "a", number, times=2)
    for _ in range(8):
        cache.asked(key("b", 0), digest("b", 0))
        await cache.get(key("b", 0), digest("b", 0), pack)
    await cache.close()
    again = edge_in(tmp_path, origin, clock)
    assert await again.read(key("b", 0), digest("b", 0)) == content("b", 0)
    assert again.disk_bytes == SIZE


async def test_a_missing_object_is_told_as_such(
    tmp_path: Path, origin: LocalObjects, clock: ManualClock
) -> None:
    with pytest.raises(ObjectNotFound):
        await edge_in(tmp_path, origin, clock).read(key("d", 0), bytes(32))


def test_an_item_is_read_out_of_its_key() -> None:
    assert item_of(key("a", 12)) == Item("media/a/job/h264-360", 12)
    assert item_of("media/a/job/h264-360/init.mp4") == Item("media/a/job/h264-360", -1)


def test_who_begins_a_title_makes_all_that_follows_worth_more() -> None:
    placement = Placement()
    first, other = (Item(f"{title}/h264-720", 16) for title in "ab")
    for item in (first, other):
        for number in (0, 8, 16):
            placement.seen(Item(item.group, number), 0.0)
    for _ in range(5):
        placement.seen(Item(first.group, 0), 1000.0)
    assert placement.worth(first, 1000.0) > placement.worth(other, 1000.0)
    assert placement.worth(first, 1000.0) > placement.worth(first, 200_000.0)


def test_one_who_stays_counts_no_more_than_one_who_leaves() -> None:
    placement = Placement()
    stayed, left = (Item(f"{title}/h264-720", 0) for title in "ab")
    for number in range(8):
        placement.seen(Item(stayed.group, number), 6.0 * number)
    for _ in range(2):
        placement.seen(left, 60.0)
    assert placement.worth(left, 60.0) > placement.worth(stayed, 60.0)
    # After so long it is somebody else who goes on there, or the same with a break.
    before = placement.worth(stayed, 10_000.0)
    placement.seen(Item(stayed.group, 8), 10_000.0)
    assert placement.worth(stayed, 10_000.0) > before


def test_where_a_titles_many_viewers_leave_it_is_worth_less_than_elsewhere() -> None:
    placement = Placement()
    left, stayed = (f"{title}/h264-720" for title in "ab")
    for at_s in range(0, 4000, 100):
        for number in range(16):
            placement.seen(Item(stayed, number), at_s + number)
            if number < 8:
                placement.seen(Item(left, number), at_s + number)
    begins = [placement.worth(Item(group, 0), 4000.0) for group in (left, stayed)]
    assert begins[0] == pytest.approx(begins[1])
    assert 2 * placement.worth(Item(left, 8), 4000.0) < placement.worth(Item(stayed, 8), 4000.0)


def test_two_of_the_same_rank_do_not_push_each_other_out() -> None:
    placement = Placement()
    for title in ("a", "b"):
        placement.seen(Item(title, 0), 0.0)
    assert not placement.displaces(Item("a", 0), Item("b", 0), 0.0)
    assert not placement.displaces(Item("b", 0), Item("a", 0), 0.0)


def test_counts_that_say_nothing_any_more_are_forgotten() -> None:
    placement = Placement()
    placement.seen(Item("a", 0), 0.0)
    placement.forget(30 * 86_400.0)
    assert placement._parts == {}


def test_a_clock_that_is_set_back_makes_nothing_more_popular() -> None:
    placement = Placement()
    placement.seen(Item("a", 0), 1_000_000.0)
    assert placement.worth(Item("a", 0), 0.0) == 1.0


def test_a_part_that_few_watched_is_worth_what_its_title_and_its_kind_are_elsewhere() -> None:
    placement = Placement()
    for title, times in (("hot", 20), ("cold", 2)):
        for _ in range(times):
            placement.seen(Item(f"{title}/h264-720", 0), 0.0)
    placement.seen(Item("cold/h264-240", 0), 0.0)
    hot, cold, never = (Item(f"{title}/h264-240", 0) for title in ("hot", "cold", "unknown"))
    assert placement.worth(hot, 0.0) > placement.worth(cold, 0.0) > placement.worth(never, 0.0) == 0.0


def test_what_placement_knows_comes_back_as_it_was() -> None:
    placement, again = Placement(), Placement()
    items = [Item(f"{title}/{rung}", number) for title in "ab" for rung in "xy" for number in (-1, 0, 9, 30)]
    for at_s, item in enumerate(items * 2):
        placement.seen(item, 3600.0 * at_s)
    again.restore(json.loads(json.dumps(placement.counts())))
    now_s = 3600.0 * 40
    assert [again.worth(item, now_s) for item in items] == pytest.approx(
        [placement.worth(item, now_s) for item in items]
    )
