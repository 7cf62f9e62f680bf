from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc, series_pb2_grpc, watchlist_pb2_grpc
from kino.catalog.v1 import resources_pb2 as res
from kino.catalog.v1 import series_pb2 as pb
from kino.catalog.v1 import watchlist_pb2 as lists
from services.runtime.testing import channel_of, service_token, user_token
from tests.integration.test_catalog_rpc import World, create, playable, refused, world

__all__ = ["world"]
PROFILE = "users/bob/profiles/main"


class Person:
    """Somebody with a stub of each service of the catalog."""

    def __init__(self, channel: Any) -> None:
        self.titles: Any = catalog_pb2_grpc.CatalogServiceStub(channel)
        self.series: Any = series_pb2_grpc.SeriesServiceStub(channel)
        self.lists: Any = watchlist_pb2_grpc.WatchlistServiceStub(channel)


async def person(world: World, stack: AsyncExitStack, user: str | None, *roles: str) -> Person:
    token = user_token(world.process, user, *roles) if user else service_token(world.process, "playback")
    return Person(await stack.enter_async_context(channel_of(world.process, token)))


async def make_series(owner: Person, name: str = "Dekalog") -> res.Series:
    request = pb.CreateSeriesRequest(series=res.Series(display_name=name), request_id=str(uuid.uuid4()))
    made: res.Series = (await owner.series.CreateSeries(request)).series
    return made


async def make_season(owner: Person, series: res.Series, number: int) -> res.Season:
    request = pb.CreateSeasonRequest(
        parent=series.name, season=res.Season(number=number), request_id=str(uuid.uuid4())
    )
    made: res.Season = (await owner.series.CreateSeason(request)).season
    return made


def placing(season: res.Season, title: res.Title, number: int = 0) -> pb.CreateEpisodeRequest:
    episode = res.Episode(title=title.name, number=number)
    return pb.CreateEpisodeRequest(parent=season.name, episode=episode, request_id=str(uuid.uuid4()))


async def test_a_series_is_shown_with_its_visible_episodes_in_order(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        viewer = await person(world, stack, "users/bob")
        series = await make_series(owner)
        first, second = await make_season(owner, series, 1), await make_season(owner, series, 2)
        shown = [(await playable(world, owner.titles))[0] for _ in range(3)]
        hidden = await create(owner.titles, "Not encoded yet")
        assert await refused(viewer.series.GetSeries(pb.GetSeriesRequest(name=series.name))) == (
            "NOT_FOUND",
            "SERIES_NOT_FOUND",
        )
        await owner.series.CreateEpisode(placing(second, shown[2]))
        await owner.series.CreateEpisode(placing(first, shown[0]))
        await owner.series.CreateEpisode(placing(first, hidden))
        placed = (await owner.series.CreateEpisode(placing(first, shown[1], 7))).episode
        assert (placed.number, placed.details.place.series_display_name) == (7, "Dekalog")

        listed = await viewer.series.ListEpisodes(pb.ListEpisodesRequest(parent=f"{series.name}/seasons/-"))
        assert [one.title for one in listed.episodes] == [title.name for title in shown]
        page = await owner.series.ListEpisodes(pb.ListEpisodesRequest(parent=first.name, page_size=2))
        rest = pb.ListEpisodesRequest(parent=first.name, page_size=2, page_token=page.next_page_token)
        assert [one.number for one in page.episodes] == [1, 2]
        assert [one.number for one in (await owner.series.ListEpisodes(rest)).episodes] == [7]

        names = [f"{first.name}/episodes/{one.name[7:]}" for one in (shown[1], hidden, shown[0])]
        await owner.series.ReorderEpisodes(pb.ReorderEpisodesRequest(parent=first.name, episodes=names))
        listed = await viewer.series.ListEpisodes(pb.ListEpisodesRequest(parent=first.name))
        assert [(one.title, one.number) for one in listed.episodes] == [
            (shown[1].name, 1),
            (shown[0].name, 3),
        ]
        films = await viewer.titles.ListTitles(catalog_pb2.ListTitlesRequest(without_episodes=True))
        assert list(films.titles) == []


async def test_the_next_episode_is_the_next_that_can_be_seen_and_played(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        viewer = await person(world, stack, "users/bob")
        series = await make_series(owner)
        seasons = [await make_season(owner, series, number) for number in (1, 2)]
        first, last = [(await playable(world, owner.titles))[0] for _ in range(2)]
        between, film = await create(owner.titles), (await playable(world, owner.titles))[0]
        for season, title in ((seasons[0], first), (seasons[0], between), (seasons[1], last)):
            await owner.series.CreateEpisode(placing(season, title))

        async def after(title: res.Title) -> str:
            request = pb.GetNextEpisodeRequest(title=title.name)
            return str((await viewer.series.GetNextEpisode(request)).episode.title)

        assert await after(first) == last.name
        assert await after(last) == ""
        assert await after(film) == ""


async def test_a_title_is_one_episode_with_a_number_of_its_own(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        stranger = await person(world, stack, "users/eve", "publisher")
        series = await make_series(owner)
        season, title = await make_season(owner, series, 1), await create(owner.titles)
        request = placing(season, title, 4)
        made = (await owner.series.CreateEpisode(request)).episode
        assert (await owner.series.CreateEpisode(request)).episode == made
        assert await refused(owner.series.CreateEpisode(placing(season, title))) == (
            "ALREADY_EXISTS",
            "ALREADY_EPISODE",
        )
        other = await create(owner.titles)
        assert await refused(owner.series.CreateEpisode(placing(season, other, 4))) == (
            "ALREADY_EXISTS",
            "EPISODE_NUMBER_TAKEN",
        )
        assert await refused(make_season(owner, series, 1)) == ("ALREADY_EXISTS", "SEASON_NUMBER_TAKEN")
        assert await refused(make_season(stranger, series, 3)) == ("NOT_FOUND", "SERIES_NOT_FOUND")
        foreign = await create(stranger.titles)
        assert await refused(owner.series.CreateEpisode(placing(season, foreign))) == (
            "NOT_FOUND",
            "TITLE_NOT_FOUND",
        )
        wrong = pb.ReorderEpisodesRequest(parent=season.name, episodes=[made.name, made.name])
        assert (await refused(owner.series.ReorderEpisodes(wrong)))[0] == "INVALID_ARGUMENT"


async def test_deleting_a_series_or_season_leaves_the_titles(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        series = await make_series(owner)
        seasons = [await make_season(owner, series, number) for number in (1, 2)]
        titles = [await create(owner.titles) for _ in seasons]
        for season, title in zip(seasons, titles, strict=True):
            await owner.series.CreateEpisode(placing(season, title))

        async def placed(title: res.Title) -> bool:
            answer = await owner.titles.GetTitle(catalog_pb2.GetTitleRequest(name=title.name))
            return bool(answer.title.HasField("place"))

        await owner.series.DeleteSeason(pb.DeleteSeasonRequest(name=seasons[0].name))
        assert [await placed(title) for title in titles] == [False, True]
        await owner.series.DeleteSeries(pb.DeleteSeriesRequest(name=series.name))
        assert [await placed(title) for title in titles] == [False, False]
        assert list((await owner.series.ListSeries(pb.ListSeriesRequest())).series) == []


async def test_the_search_index_hears_of_places_and_new_names_of_a_series(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        series, title = await make_series(owner), await create(owner.titles)
        season = await make_season(owner, series, 3)
        made = (await owner.series.CreateEpisode(placing(season, title))).episode
        await world.search.until(lambda known: known[title.name].series_display_name == "Dekalog")
        known = world.search.known[title.name]
        assert (known.series, known.season_number, known.episode_number) == (series.name, 3, 1)
        change = res.Series(name=series.name, display_name="Десять", etag=series.etag)
        request = pb.UpdateSeriesRequest(series=change, update_mask=FieldMask(paths=["display_name"]))
        await owner.series.UpdateSeries(request)
        await world.search.until(lambda known: known[title.name].series_display_name == "Десять")
        assert await refused(owner.series.UpdateSeries(request)) == ("ABORTED", "ETAG_MISMATCH")
        await owner.series.DeleteEpisode(pb.DeleteEpisodeRequest(name=made.name))
        await world.search.until(lambda known: known[title.name].series == "")


async def test_an_unpublished_title_is_its_owners_alone(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        viewer = await person(world, stack, "users/bob")
        title, _ = await playable(world, owner.titles)
        get = catalog_pb2.GetTitleRequest(name=title.name)
        hidden = await owner.titles.UnpublishTitle(catalog_pb2.UnpublishTitleRequest(name=title.name))
        assert hidden.title.unpublished
        assert await refused(viewer.titles.GetTitle(get)) == ("NOT_FOUND", "TITLE_NOT_FOUND")
        assert list((await viewer.titles.ListTitles(catalog_pb2.ListTitlesRequest())).titles) == []
        await world.search.until(lambda known: title.name in known and not known[title.name].visible)
        publish = catalog_pb2.PublishTitleRequest(name=title.name)
        shown = (await owner.titles.PublishTitle(publish)).title
        assert (await owner.titles.PublishTitle(publish)).title.etag == shown.etag
        assert (await viewer.titles.GetTitle(get)).title.name == title.name
        made = await create(owner.titles, "Draft", unpublished=True)
        assert made.unpublished


async def test_rights_decide_where_and_when_and_are_shown_to_the_owner_alone(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        viewer, playback = await person(world, stack, "users/bob"), await person(world, stack, None)
        title, _ = await playable(world, owner.titles)
        end = Timestamp()
        end.FromDatetime(world.clock.now() + timedelta(minutes=1))
        window = res.RightsWindow(end_time=end, region_codes=["DE"])
        change = catalog_pb2.UpdateTitleRequest(
            title=res.Title(name=title.name, rights=[window]), update_mask=FieldMask(paths=["rights"])
        )
        changed = (await owner.titles.UpdateTitle(change)).title
        assert (list(changed.rights), changed.display_name) == ([window], title.display_name)
        seen = (await viewer.titles.GetTitle(catalog_pb2.GetTitleRequest(name=title.name))).title
        assert list(seen.rights) == []
        assert seen.availability.state == res.Availability.STATE_OUTSIDE_REGION

        async def check(region: str) -> res.Availability:
            request = catalog_pb2.CheckAvailabilityRequest(title=title.name, region_code=region)
            found: res.Availability = (await playback.titles.CheckAvailability(request)).availability
            return found

        found = await check("DE")
        assert (found.state, found.change_time) == (res.Availability.STATE_AVAILABLE, end)
        assert (await check("FR")).state == res.Availability.STATE_OUTSIDE_REGION
        world.clock.advance(timedelta(minutes=1))
        assert (await check("DE")).state == res.Availability.STATE_EXPIRED


async def test_a_profile_keeps_a_list_of_what_it_wants_to_watch(world: World) -> None:
    async with AsyncExitStack() as stack:
        owner = await person(world, stack, "users/ann", "publisher")
        viewer, stranger = await person(world, stack, "users/bob"), await person(world, stack, "users/eve")
        title, _ = await playable(world, owner.titles)
        episode, _ = await playable(world, owner.titles)
        series = await make_series(owner)
        await owner.series.CreateEpisode(placing(await make_season(owner, series, 1), episode))

        def adding(subject: str) -> lists.CreateWatchlistEntryRequest:
            return lists.CreateWatchlistEntryRequest(
                parent=PROFILE, entry=res.WatchlistEntry(subject=subject), request_id=str(uuid.uuid4())
            )

        async def listed(person: Person) -> list[str]:
            page = await person.lists.ListWatchlist(lists.ListWatchlistRequest(parent=PROFILE))
            return [entry.subject for entry in page.entries]

        entry = (await viewer.lists.CreateWatchlistEntry(adding(title.name))).entry
        assert entry.title.name == title.name
        world.clock.advance(1)
        await viewer.lists.CreateWatchlistEntry(adding(series.name))
        assert (await viewer.lists.CreateWatchlistEntry(adding(title.name))).entry == entry
        assert await listed(viewer) == [series.name, title.name]
        assert await refused(listed(stranger)) == ("PERMISSION_DENIED", "NOT_OWNER")
        assert await refused(viewer.lists.CreateWatchlistEntry(adding("titles/none"))) == (
            "NOT_FOUND",
            "TITLE_NOT_FOUND",
        )
        await owner.titles.UnpublishTitle(catalog_pb2.UnpublishTitleRequest(name=title.name))
        assert await listed(viewer) == [series.name]
        remove = lists.DeleteWatchlistEntryRequest(name=f"{PROFILE}/watchlist/{series.name[7:]}")
        await viewer.lists.DeleteWatchlistEntry(remove)
        assert await listed(viewer) == []
